"""Matching and loss: from a head's maps and the objects of a batch to a number, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from .configs import (
    LEVELS,
    NUM_CLASSES,
    background_first,
    mmdet_head,
    our_head,
    to_format,
    torchvision_ssd,
)
from .images import MAX_OBJECTS, random_boxes
from .timing import MMDET, OURS, TORCHVISION, Case, Stopwatch

BATCH = 32
FORMATS = dict(contiguous=torch.contiguous_format, channels_last=torch.channels_last)
# How cost grows: batch, objects an image (None: 1 to 12) and input size.
GROWTH = ((8, 12, 300), (32, 12, 300), (32, 1, 300), (32, 40, 300), (32, 12, 512))


def run(stopwatch: Stopwatch, batch: int = BATCH) -> list[Case]:
    """Time the loss, and the loss with its gradient, in both memory formats."""
    cases = []
    for name, memory_format in FORMATS.items():
        inputs = make_inputs(batch, stopwatch.device, memory_format=memory_format)
        losses = make_losses(inputs)
        for backward in (False, True):
            cases.append(time_case(stopwatch, losses, backward, f'batch {batch}, {name}'))
    return cases


def run_growth(stopwatch: Stopwatch, settings: Sequence[tuple] = GROWTH) -> list[Case]:
    """Time the loss with its gradient for other batches, numbers of objects and input sizes."""
    cases = []
    for batch, objects, size in settings:
        losses = make_losses(make_inputs(batch, stopwatch.device, objects, size))
        name = f'batch {batch}, {objects} objects, {size} px'
        cases.append(time_case(stopwatch, losses, True, name, part='growth'))
    return cases


def time_case(
    stopwatch: Stopwatch, losses: dict, backward: bool, name: str, part: str = 'loss'
) -> Case:
    """Time losses from :func:`make_losses`; says what each comes to."""
    name = f'{"forward + backward" if backward else "forward"}, {name}'
    works = {who: training_step(*loss) if backward else loss[0] for who, loss in losses.items()}
    samples = stopwatch.alternate(works)
    facts = {f'loss of {who}': round(loss().item(), 3) for who, (loss, _) in losses.items()}
    return Case(part, name, 'batch', samples, facts)


def training_step(loss: Callable[[], Tensor], maps: list[Tensor]) -> Callable[[], tuple]:
    """The work of a loss and of its gradient with respect to the maps."""
    return lambda: torch.autograd.grad(loss(), maps)


@dataclass
class Inputs:
    """What a head has at hand in training."""

    input_size: int
    cls_scores: list[Tensor]  # (B, A * K, H, W) of each level
    bbox_preds: list[Tensor]  # (B, A * 4, H, W)
    gt_instances: list[InstanceData]  # bboxes (n, 4) and labels (n,)
    ignored: list[InstanceData]
    metas: list[dict]


def make_inputs(
    batch: int,
    device: str,
    objects: int | None = None,
    input_size: int = 300,
    memory_format: torch.memory_format = torch.contiguous_format,
    seed: int = 0,
) -> Inputs:
    """Random maps and random objects: 1 to 12 an image, or as many as ``objects`` says."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    levels = LEVELS[input_size]

    def random_maps(channels: int) -> list[Tensor]:
        maps = []
        for side, ratios in zip(levels['maps'], levels['ratios']):
            size = (batch, (2 + 2 * len(ratios)) * channels, side, side)
            values = torch.randn(size, generator=generator).to(device)
            maps.append(to_format(values, memory_format).requires_grad_())
        return maps

    instances = []
    for i in range(batch):
        count = objects or 1 + i % MAX_OBJECTS
        boxes = torch.from_numpy(random_boxes(rng, count, input_size, input_size)).float()
        labels = torch.from_numpy(rng.integers(0, NUM_CLASSES, count))
        instances.append(InstanceData(bboxes=boxes.to(device), labels=labels.to(device)))
    none = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    return Inputs(
        input_size,
        random_maps(NUM_CLASSES + 1),
        random_maps(4),
        instances,
        [none.to(device) for _ in range(batch)],
        make_metas(batch, input_size),
    )


def make_metas(batch: int, input_size: int) -> list[dict]:
    """What a head is told of each image."""
    shape = (input_size, input_size)
    meta = dict(img_shape=shape, pad_shape=shape, batch_input_shape=shape, ori_shape=shape)
    return [dict(meta, scale_factor=(1.0, 1.0)) for _ in range(batch)]


def make_losses(inputs: Inputs) -> dict[str, tuple[Callable[[], Tensor], list[Tensor]]]:
    """Each contestant's loss, a scalar, and the maps that it is a function of.

    The plugin and MMDetection get the very same tensors, torchvision a copy with background first.
    """
    device = inputs.cls_scores[0].device
    heads = {OURS: our_head(inputs.input_size), MMDET: mmdet_head(inputs.input_size)}
    maps = inputs.cls_scores + inputs.bbox_preds
    losses = {who: (head_loss(head.to(device), inputs), maps) for who, head in heads.items()}
    losses[TORCHVISION] = torchvision_loss(inputs)
    return losses


def head_loss(head: nn.Module, inputs: Inputs) -> Callable[[], Tensor]:
    """The loss of a head of MMDetection's kind."""

    def loss() -> Tensor:
        parts = head.loss_by_feat(
            inputs.cls_scores, inputs.bbox_preds, inputs.gt_instances, inputs.metas, inputs.ignored
        )
        # A scalar of the batch, or one of each image.
        return sum(sum(p) if isinstance(p, (list, tuple)) else p for p in parts.values()).sum()

    return loss


def torchvision_loss(inputs: Inputs) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """The steps between maps and loss of ``SSD.forward``."""
    ssd = torchvision_ssd(inputs.input_size).to(inputs.cls_scores[0].device)
    scores = [m.requires_grad_() for m in background_first(inputs.cls_scores)]
    deltas = inputs.bbox_preds
    targets = [dict(boxes=i.bboxes, labels=i.labels + 1) for i in inputs.gt_instances]
    images = blank_images(inputs)

    def loss() -> Tensor:
        outputs = dict(
            bbox_regression=ssd.head.regression_head(deltas),
            cls_logits=ssd.head.classification_head(scores),
        )
        priors = ssd.anchor_generator(images, deltas)
        matches = [
            ssd.proposal_matcher(box_iou(target['boxes'], prior))
            for prior, target in zip(priors, targets)
        ]
        return sum(ssd.compute_loss(targets, outputs, priors, matches).values())

    return loss, scores + deltas


def blank_images(inputs: Inputs) -> ImageList:
    """Of the images, torchvision's prior generator reads the shape and the device."""
    size = (inputs.input_size, inputs.input_size)
    batch = len(inputs.metas)
    return ImageList(
        torch.zeros(batch, 3, *size, device=inputs.cls_scores[0].device), [size] * batch
    )
