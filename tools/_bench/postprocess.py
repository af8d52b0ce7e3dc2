"""Post-processing: from a head's maps to the detections of each image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import box_iou

from .contestants import NUM_CLASSES, TorchvisionHead, mmdet_head, our_head, our_model
from .loss import Inputs, make_inputs
from .timing import MMDET, OURS, TORCHVISION, Case, Stopwatch

BATCHES = (8, 1)


def run(stopwatch: Stopwatch, batches: tuple[int, ...] = BATCHES) -> list[Case]:
    """Time each kind of scores in each batch; the facts count candidates and detections."""
    cases = []
    for batch in batches:
        for scores, change in SCORES.items():
            inputs = make_inputs(batch, stopwatch.device)
            change(inputs)
            works = make_contestants(inputs)
            with torch.no_grad():
                samples = stopwatch.alternate(works)
                facts = dict(candidates=count_candidates(inputs), **compare(works))
            name = f'batch {batch}, {scores} scores'
            cases.append(Case('postprocess', name, 'batch', samples, facts))
    return cases


def make_contestants(inputs: Inputs) -> dict[str, Callable[[], list]]:
    """Functions that detect, by contestant.

    All have the paper's limits: score 0.01, 400 a class, IoU 0.45, 200 an image. MMDetection
    applies the 400 to each level, over all classes.
    """
    device = inputs.cls_scores[0].device
    ours, theirs = our_head().to(device).eval(), mmdet_head().to(device).eval()
    maps = inputs.cls_scores, inputs.bbox_preds
    return {
        OURS: lambda: ours.predict_by_feat(*maps, batch_img_metas=inputs.metas),
        MMDET: lambda: theirs.predict_by_feat(*maps, batch_img_metas=inputs.metas),
        TORCHVISION: TorchvisionHead(inputs.input_size, *maps).detect,
    }


@torch.no_grad()
def favour_background(inputs: Inputs, odds: float = 5) -> None:
    """Raise the background scores, as training does first: a third of the pairs still pass."""
    for level in inputs.cls_scores:
        level.unflatten(1, (-1, NUM_CLASSES + 1))[:, :, NUM_CLASSES] += odds


@torch.no_grad()
def make_trained(inputs: Inputs, seed: int = 1) -> None:
    """Replace the maps by maps such as a trained detector gives.

    Nearly all priors are sure of background, yet some hundreds of (prior, class) pairs of an image
    have scores a little above the threshold. Priors that overlap a ground-truth box predict its
    class, the more surely the more they overlap, and its offsets.
    """
    generator = torch.Generator().manual_seed(seed)
    peer = TorchvisionHead(inputs.input_size, inputs.cls_scores, inputs.bbox_preds)
    priors = peer.priors()[0].cpu()  # (P, 4)
    batch, count = len(inputs.metas), len(priors)
    scores = torch.randn(batch, count, NUM_CLASSES + 1, generator=generator)  # (B, P, K)
    scores[..., NUM_CLASSES] += 8.5
    deltas = torch.randn(batch, count, 4, generator=generator) / 2  # (B, P, 4)
    for image, truth in enumerate(inputs.gt_instances):
        bboxes, labels = truth.bboxes.cpu(), truth.labels.cpu()
        overlap, nearest = box_iou(priors, bboxes).max(dim=1)  # (P,)
        near = (overlap > 0.3).nonzero().flatten()
        certainty = 22 * (overlap[near] - 0.3)  # the score is 1/2 at an IoU of about 0.7
        scores[image, near, labels[nearest[near]]] += certainty
        targets = peer.ssd.box_coder.encode_single(bboxes[nearest[near]], priors[near])
        deltas[image, near] = targets + 0.6 * deltas[image, near]
    write_maps(inputs.cls_scores, scores)
    write_maps(inputs.bbox_preds, deltas)


SCORES = {
    'random': lambda inputs: None,
    'background-heavy': favour_background,
    'trained': make_trained,
}


def write_maps(maps: list[Tensor], values: Tensor) -> None:
    """Write values (B, P, C) into maps (B, A * C, H, W), a level each."""
    counts = [level[0].numel() // values.size(2) for level in maps]
    for level, part in zip(maps, values.split(counts, dim=1)):
        batch, _, height, width = level.shape
        level.copy_(part.reshape(batch, height, width, -1).permute(0, 3, 1, 2))


def count_candidates(inputs: Inputs) -> int:
    """Number of (prior, class) pairs of the batch whose score passes the filter."""
    score_thr = our_model().test_cfg.score_thr
    per_class = [m.unflatten(1, (-1, NUM_CLASSES + 1)) for m in inputs.cls_scores]
    return sum(int((m.softmax(2)[:, :, :-1] > score_thr).sum()) for m in per_class)


def compare(works: dict[str, Callable[[], list]]) -> dict[str, object]:
    """Number of detections of each contestant, and the share of ours that torchvision has too."""
    ours, theirs, others = (works[who]() for who in (OURS, MMDET, TORCHVISION))
    found = {OURS: ours, MMDET: theirs, TORCHVISION: [d['labels'] for d in others]}
    facts: dict[str, object] = {
        f'detections of {who}': sum(map(len, images)) for who, images in found.items()
    }
    same = sum(count_same(one, other) for one, other in zip(ours, others))
    facts['share of ours that torchvision has'] = round(same / max(sum(map(len, ours)), 1), 4)
    return facts


def count_same(ours: InstanceData, other: dict[str, Tensor]) -> int:
    """How many of our detections of an image torchvision has with the same class, score and box."""
    if min(len(ours), len(other['labels'])) == 0:
        return 0
    label = ours.labels[:, None] + 1 == other['labels']
    score = (ours.scores[:, None] - other['scores']).abs() < 1e-4
    box = (ours.bboxes[:, None] - other['boxes']).abs().amax(dim=-1) < 0.1  # pixels
    return int((label & score & box).any(dim=1).sum())
