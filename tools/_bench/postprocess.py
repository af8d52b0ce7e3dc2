"""Post-processing: from a head's maps to the detections of each image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import box_iou

from .configs import (
    LEVELS,
    NUM_CLASSES,
    background_first,
    mmdet_head,
    our_head,
    torchvision_ssd,
)
from .loss import Inputs, blank_images, make_inputs
from .timing import MMDET, OURS, TORCHVISION, Case, Stopwatch

BATCHES = (8, 1)
SCORES = ('random', 'background-heavy', 'trained')


def run(stopwatch: Stopwatch, batches: tuple[int, ...] = BATCHES) -> list[Case]:
    """Time each kind of scores in each batch; says how many detections each contestant has."""
    cases = []
    for batch in batches:
        for scores in SCORES:
            inputs = make_inputs(batch, stopwatch.device)
            if scores == 'background-heavy':
                favour_background(inputs)
            if scores == 'trained':
                make_trained(inputs)
            works = make_contestants(inputs)
            with torch.no_grad():
                samples = stopwatch.alternate(works)
                facts = dict(candidates=count_candidates(inputs), **compare(works))
            cases.append(
                Case('postprocess', f'batch {batch}, {scores} scores', 'batch', samples, facts)
            )
    return cases


def make_contestants(inputs: Inputs) -> dict[str, Callable[[], list]]:
    """The works; all with the paper's limits: score 0.01, 400 a class, IoU 0.45, 200 an image.

    MMDetection's 400 are those of a level, over all classes.
    """
    device = inputs.cls_scores[0].device
    ours, theirs = our_head().to(device).eval(), mmdet_head().to(device).eval()
    maps = dict(cls_scores=inputs.cls_scores, bbox_preds=inputs.bbox_preds)
    return {
        OURS: lambda: ours.predict_by_feat(**maps, batch_img_metas=inputs.metas),
        MMDET: lambda: theirs.predict_by_feat(**maps, batch_img_metas=inputs.metas),
        TORCHVISION: torchvision_detections(inputs),
    }


def torchvision_detections(inputs: Inputs) -> Callable[[], list[dict]]:
    """The steps between maps and detections of ``SSD.forward``."""
    ssd = torchvision_ssd(inputs.input_size).to(inputs.cls_scores[0].device).eval()
    scores, images = background_first(inputs.cls_scores), blank_images(inputs)

    def detect() -> list[dict]:
        outputs = dict(
            bbox_regression=ssd.head.regression_head(inputs.bbox_preds),
            cls_logits=ssd.head.classification_head(scores),
        )
        priors = ssd.anchor_generator(images, inputs.bbox_preds)
        return ssd.postprocess_detections(outputs, priors, images.image_sizes)

    return detect


@torch.no_grad()
def favour_background(inputs: Inputs, odds: float = 5) -> None:
    """Raise the scores of background, as training does first: a third of the pairs still pass."""
    for level in inputs.cls_scores:
        level.unflatten(1, (-1, NUM_CLASSES + 1))[:, :, NUM_CLASSES] += odds


@torch.no_grad()
def make_trained(inputs: Inputs, seed: int = 1) -> None:
    """Replace the maps with such as a trained detector gives.

    Nearly all priors are sure of background, and some hundreds (prior, class) pairs of an image
    have scores a little above the threshold all the same. Priors that overlap an object know its
    class, the better the more they overlap, and point to it.
    """
    generator = torch.Generator().manual_seed(seed)
    head = our_head(inputs.input_size)
    sides = [(side, side) for side in LEVELS[inputs.input_size]['maps']]
    priors = torch.cat(head.prior_generator.grid_priors(sides, device='cpu'))  # (P, 4)
    batch, count = len(inputs.metas), len(priors)
    scores = torch.randn(batch, count, NUM_CLASSES + 1, generator=generator)  # (B, P, K)
    scores[..., NUM_CLASSES] += 8.5
    deltas = torch.randn(batch, count, 4, generator=generator) / 2  # (B, P, 4)
    for image, objects in enumerate(inputs.gt_instances):
        bboxes, labels = objects.bboxes.cpu(), objects.labels.cpu()
        overlap, nearest = box_iou(priors, bboxes).max(dim=1)  # (P,)
        near = (overlap > 0.3).nonzero().flatten()
        certainty = 22 * (overlap[near] - 0.3)  # the score is 1/2 at an IoU of about 0.7
        scores[image, near, labels[nearest[near]]] += certainty
        targets = head.bbox_coder.encode(priors[near], bboxes[nearest[near]])
        deltas[image, near] = targets + 0.6 * deltas[image, near]
    replace(inputs.cls_scores, scores)
    replace(inputs.bbox_preds, deltas)


def count_candidates(inputs: Inputs) -> int:
    """(prior, class) pairs of the batch whose score passes the filter."""
    score_thr = our_head().test_cfg.score_thr
    per_class = [m.unflatten(1, (-1, NUM_CLASSES + 1)) for m in inputs.cls_scores]
    return sum(int((m.softmax(2)[:, :, :-1] > score_thr).sum()) for m in per_class)


def replace(maps: list[Tensor], values: Tensor) -> None:
    """Write values (B, P, C) into maps (B, A * C, H, W), a map a level."""
    start = 0
    for level in maps:
        batch, _, height, width = level.shape
        count = level[0].numel() // values.size(2)
        part = values[:, start : start + count].reshape(batch, height, width, -1)
        level.copy_(part.permute(0, 3, 1, 2))
        start += count


def compare(works: dict[str, Callable[[], list]]) -> dict[str, object]:
    """Detections of each contestant, and the share of ours that torchvision has too."""
    ours, theirs = works[OURS](), works[MMDET]()
    others = works[TORCHVISION]()
    found = {OURS: ours, MMDET: theirs, TORCHVISION: [d['labels'] for d in others]}
    facts = {f'detections of {who}': sum(map(len, images)) for who, images in found.items()}
    same = sum(count_same(one, other) for one, other in zip(ours, others))
    facts['share of ours that torchvision has'] = round(same / max(sum(map(len, ours)), 1), 4)
    return facts


def count_same(ours: InstanceData, other: dict[str, Tensor]) -> int:
    """How many of our detections of an image have one of the same class, score and box there."""
    if min(len(ours), len(other['labels'])) == 0:
        return 0
    label = ours.labels[:, None] + 1 == other['labels']
    score = (ours.scores[:, None] - other['scores']).abs() < 1e-4
    box = (ours.bboxes[:, None] - other['boxes']).abs().amax(dim=-1) < 0.1  # pixels
    return int((label & score & box).any(dim=1).sum())
