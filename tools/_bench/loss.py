"""Matching and loss: from a head's maps and the ground truth to a loss and its gradient."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from .contestants import NUM_CLASSES, TorchvisionHead, mmdet_head, our_head, our_model
from .images import MAX_OBJECTS, random_boxes
from .timing import MMDET, OURS, TORCHVISION, Case, Stopwatch

BATCH = 32
FORMATS = dict(contiguous=torch.contiguous_format, channels_last=torch.channels_last)
# Batch, ground-truth boxes an image (None: 1 to 12) and input size, by which the cost grows.
GROWTH = ((8, 12, 300), (32, 12, 300), (32, 1, 300), (32, 40, 300), (32, 12, 512))


def run(stopwatch: Stopwatch, batch: int = BATCH) -> list[Case]:
    """Time the loss, and the loss with its gradient, in both memory formats."""
    cases = []
    for name, memory_format in FORMATS.items():
        inputs = make_inputs(batch, stopwatch.device, memory_format=memory_format)
        for backward in (False, True):
            cases.append(time_losses(stopwatch, inputs, backward, f'batch {batch}, {name}'))
    return cases


def run_growth(stopwatch: Stopwatch, settings: Sequence[tuple] = GROWTH) -> list[Case]:
    """Time the loss with its gradient for other batches, numbers of boxes and input sizes."""
    cases = []
    for batch, objects, size in settings:
        inputs = make_inputs(batch, stopwatch.device, objects, size)
        name = f'batch {batch}, {objects} objects, {size} px'
        cases.append(time_losses(stopwatch, inputs, True, name, part='growth'))
    return cases


def time_losses(
    stopwatch: Stopwatch, inputs: Inputs, backward: bool, name: str, part: str = 'loss'
) -> Case:
    """Time each contestant's loss; the facts are the values of the losses."""
    losses = make_losses(inputs)
    works = {who: partial(gradient, *loss) if backward else loss[0] for who, loss in losses.items()}
    samples = stopwatch.alternate(works)
    facts = {f'loss of {who}': round(loss().item(), 3) for who, (loss, _) in losses.items()}
    name = f'{"forward + backward" if backward else "forward"}, {name}'
    return Case(part, name, 'batch', samples, facts)


def gradient(loss: Callable[[], Tensor], maps: list[Tensor]) -> tuple[Tensor, ...]:
    """The gradient of a loss with respect to the maps."""
    return torch.autograd.grad(loss(), maps)


def make_losses(inputs: Inputs) -> dict[str, tuple[Callable[[], Tensor], list[Tensor]]]:
    """Each contestant's loss, a scalar, and the maps that it is a function of.

    The plugin and MMDetection get the very same tensors, torchvision a copy with background first.
    """
    maps = inputs.cls_scores + inputs.bbox_preds
    device = maps[0].device
    heads = {OURS: our_head(inputs.input_size), MMDET: mmdet_head(inputs.input_size)}
    losses = {who: (partial(head_loss, h.to(device), inputs), maps) for who, h in heads.items()}
    peer = TorchvisionHead(inputs.input_size, inputs.cls_scores, inputs.bbox_preds)
    targets = [dict(boxes=i.bboxes, labels=i.labels + 1) for i in inputs.gt_instances]
    return losses | {TORCHVISION: (lambda: peer.loss(targets), peer.cls_scores + peer.bbox_preds)}


def head_loss(head: Any, inputs: Inputs) -> Tensor:
    """The loss of one of MMDetection's heads, or of the plugin's."""
    parts = head.loss_by_feat(
        inputs.cls_scores, inputs.bbox_preds, inputs.gt_instances, inputs.metas, inputs.ignored
    )
    # A part is a tensor of the batch, or a list with one of each image.
    terms = [part if isinstance(part, list) else [part] for part in parts.values()]
    return reduce(operator.add, chain(*terms)).sum()


class Inputs(NamedTuple):
    """Arguments of a head's ``loss_by_feat``."""

    input_size: int
    cls_scores: list[Tensor]  # (B, A * K, H, W) of each level
    bbox_preds: list[Tensor]  # (B, A * 4, H, W)
    gt_instances: list[InstanceData]  # bboxes (G, 4) and labels (G,)
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
    """Random maps and ground-truth boxes: 1 to 12 an image, or ``objects`` if that is given."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    levels = our_model(input_size).bbox_head.anchor_generator

    def random_maps(channels: int) -> list[Tensor]:
        maps = []
        for stride, ratios in zip(levels.strides, levels.ratios):
            side = math.ceil(input_size / stride)
            size = (batch, (2 + 2 * len(ratios)) * channels, side, side)
            values = torch.randn(size, generator=generator).to(device)
            maps.append(values.contiguous(memory_format=memory_format).requires_grad_())
        return maps

    instances = []
    for i in range(batch):
        count = objects or 1 + i % MAX_OBJECTS
        boxes = torch.from_numpy(random_boxes(rng, count, input_size, input_size)).float()
        labels = torch.from_numpy(rng.integers(0, NUM_CLASSES, count))
        instances.append(InstanceData(bboxes=boxes.to(device), labels=labels.to(device)))
    none = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    shape = (input_size, input_size)
    meta = dict(img_shape=shape, pad_shape=shape, batch_input_shape=shape, ori_shape=shape)
    return Inputs(
        input_size,
        random_maps(NUM_CLASSES + 1),
        random_maps(4),
        instances,
        [none.to(device) for _ in range(batch)],
        [dict(meta, scale_factor=(1.0, 1.0)) for _ in range(batch)],
    )
