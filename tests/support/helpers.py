"""A small head to test with, and the method once more, as naive loops to compare it with.

Letters as in the package: B images, P priors, G boxes of an image, C foreground classes, K scores.
"""

import math
import random
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import ssd_plugin  # noqa: F401  (first: it prepares what MMDetection needs)

# isort: split
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

# Tensors here are small: a second thread would cost more than it gives.
torch.set_num_threads(1)
NAN, INF = math.nan, math.inf

# The table of the models: sizes m_0 .. m_last, then M_last.
SSD300 = dict(
    input_size=300,
    strides=[8, 16, 32, 64, 100, 300],
    ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
    feature_sizes=[38, 19, 10, 5, 3, 1],
    per_cell=[4, 6, 6, 6, 4, 4],
    total=8732,
)
SSD512 = dict(
    input_size=512,
    strides=[8, 16, 32, 64, 128, 256, 512],
    ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
    feature_sizes=[64, 32, 16, 8, 4, 2, 1],
    per_cell=[4, 6, 6, 6, 6, 4, 4],
    total=24564,
)
MODEL_TABLE = {
    'SSD300 VOC': dict(SSD300, sizes=[30, 60, 111, 162, 213, 264, 315]),
    'SSD300 COCO': dict(SSD300, sizes=[21, 45, 99, 153, 207, 261, 315]),
    'SSD512 VOC': dict(SSD512, sizes=[35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6]),
    'SSD512 COCO': dict(SSD512, sizes=[20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72]),
}


def prior_config(model, **changes):
    """The prior generator's config for one line of the table."""
    sizes = dict(min_sizes=model['sizes'][:-1], max_sizes=model['sizes'][1:])
    same = {key: model[key] for key in ('strides', 'ratios', 'input_size')}
    return dict(type='SSDPriorGenerator', **same) | sizes | changes


def model_priors(model, dtype=torch.float32, **changes):
    """Priors of each level, of a model of the table or by its name."""
    model = MODEL_TABLE[model] if isinstance(model, str) else model
    generator = TASK_UTILS.build(prior_config(model, **changes))
    return generator.grid_priors([(n, n) for n in model['feature_sizes']], dtype, device='cpu')


# A detector small enough for loops: 64 px input, three levels, 368 priors.
TINY = dict(
    input_size=64,
    strides=[8, 16, 32],
    ratios=[[2], [2, 3], [2]],
    sizes=[10, 22, 40, 58],
    feature_sizes=[8, 4, 2],
    per_cell=[4, 6, 4],
)
TINY_TEST_CFG = dict(
    nms_pre=400, score_thr=0.01, nms=dict(type='nms', iou_threshold=0.45), max_per_img=200
)
TINY_CHANNELS = (8, 12, 8)


def tiny_head_config(num_classes=3):
    """A `SSDMultiBoxHead` over the tiny priors, without what it is trained and tested by."""
    return dict(
        type='SSDMultiBoxHead',
        num_classes=num_classes,
        in_channels=TINY_CHANNELS,
        anchor_generator=prior_config(TINY),
    )


# What a detector gives its head.
TINY_CFG = dict(train_cfg=dict(assigner=dict(type='BatchMaxIoUAssigner')), test_cfg=TINY_TEST_CFG)


def tiny_head(num_classes=3, **changes):
    """An initialised `SSDMultiBoxHead` over the tiny priors."""
    torch.manual_seed(0)
    head = MODELS.build(tiny_head_config(num_classes) | TINY_CFG | changes)
    head.init_weights()
    return head


def mined(**loss):
    """Hard negative mining around an inner loss."""
    return dict(type='HardNegativeMiningLoss', loss=loss)


def tiny_features(batch_size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = zip(TINY_CHANNELS, TINY['feature_sizes'])
    return [torch.randn(batch_size, c, n, n, generator=generator) for c, n in sizes]


def to_levels(flat, model=TINY):
    """Scores or deltas (B, P, K) as a head gives them: one (B, A*K, H, W) tensor per level."""
    levels, start = [], 0
    for side, per_cell in zip(model['feature_sizes'], model['per_cell']):
        part = flat[:, start : start + side * side * per_cell]
        start += side * side * per_cell
        part = part.reshape(len(flat), side, side, per_cell * flat.shape[-1])
        levels.append(part.permute(0, 3, 1, 2))
    assert start == flat.shape[1]
    return levels


def to_flat(levels, last):
    """The inverse of `to_levels`: (B, P, last)."""
    return torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, last) for x in levels], 1)


def image_metas(batch_size, shape=(64, 64), scale=(1.0, 1.0)):
    meta = dict(img_shape=shape, batch_input_shape=(64, 64), pad_shape=(64, 64), scale_factor=scale)
    return [dict(meta) for _ in range(batch_size)]


def as_boxes(boxes):
    """A list of boxes, which may be empty, as (n, 4) float32."""
    return torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def instances(boxes, labels=None):
    """Ground truth of one image from a list of boxes."""
    boxes = as_boxes(boxes)
    labels = [0] * len(boxes) if labels is None else labels
    return InstanceData(bboxes=boxes, labels=torch.as_tensor(labels, dtype=torch.int64))


class Batch(NamedTuple):
    """Outputs of a tiny head for B images, and their ground truth as a list for each image."""

    scores: Tensor  # (B, 368, K)
    deltas: Tensor  # (B, 368, 4)
    boxes: list
    labels: list
    ignored: list | None = None  # boxes

    def head_loss(self, head):
        """The losses of a head, by its name."""
        return head.loss_by_feat(
            to_levels(self.scores),
            to_levels(self.deltas),
            list(map(instances, self.boxes, self.labels)),
            image_metas(len(self.boxes)),
            None if self.ignored is None else list(map(instances, self.ignored)),
        )


def random_batch(counts=(3, 0, 6), num_scores=4, seed=0, spread=1.0, **fields):
    """Random outputs with a gradient, and clear-cut boxes: `counts` of them in each image."""
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(len(counts), 368, num_scores, generator=generator)
    deltas = spread * torch.randn(len(counts), 368, 4, generator=generator)
    boxes = [tiny_boxes(count, seed + i) for i, count in enumerate(counts)]
    fields = dict(boxes=boxes, labels=[[g % 3 for g in range(count)] for count in counts]) | fields
    return Batch(scores.requires_grad_(), deltas.requires_grad_(), **fields)


def assert_same_loss(found, expected, inputs, **tolerance):
    """Two scalars, and their gradients with respect to a tensor, are the same."""
    tolerance = tolerance or dict(rtol=1e-4, atol=1e-5)
    assert found.shape == ()
    torch.testing.assert_close(found, expected.to(found.dtype), **tolerance)
    ours, theirs = (
        torch.autograd.grad(loss, inputs, retain_graph=True)[0] for loss in (found, expected)
    )
    torch.testing.assert_close(ours, theirs, **tolerance)


# ------------------------------------------------------------------------------------ priors


def naive_priors(model):
    """Every prior of every cell, box by box, as nested Python lists: one list per level."""
    levels = []
    sizes = model['sizes']
    columns = (model['strides'], sizes, sizes[1:], model['ratios'], model['feature_sizes'])
    for stride, m, big, ratios, side in zip(*columns):
        shapes = [(m, m), (math.sqrt(m * big), math.sqrt(m * big))]
        for r in ratios:
            shapes.append((m * math.sqrt(r), m / math.sqrt(r)))
            shapes.append((m / math.sqrt(r), m * math.sqrt(r)))
        boxes = []
        for i in range(side):
            for j in range(side):
                x, y = (j + 0.5) * stride, (i + 0.5) * stride
                boxes += [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for w, h in shapes]
        levels.append(boxes)
    return levels


PRIORS = sum(naive_priors(TINY), [])  # 368 boxes

# ---------------------------------------------------------------------------------- matching


def area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def intersection(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    return max(w, 0) * max(h, 0)


def iou(a, b):
    """Jaccard overlap; exact (a Fraction) where the coordinates are integers."""
    common = intersection(a, b)
    union = area(a) + area(b) - common
    if isinstance(common, int) and isinstance(union, int):
        return Fraction(common, union) if union else Fraction(0)
    return common / union if union else 0.0


def takes_part(box):
    return all(math.isfinite(v) for v in box) and box[2] > box[0] and box[3] > box[1]


def naive_match(
    priors, boxes, mask=None, pos_iou_thr=0.5, neg_iou_thr=0.5, bipartite=True, ignored=(),
    ignore_iof_thr=-1,
):  # fmt: skip
    """Matching of one image: `gt_inds` and `max_overlaps`, two lists of length P."""
    mask = [True] * len(boxes) if mask is None else mask
    valid = [g for g, box in enumerate(boxes) if mask[g] and takes_part(box)]
    overlap = {g: [iou(boxes[g], prior) for prior in priors] for g in valid}

    if bipartite:
        claimed = naive_greedy([(v, g, p) for g in valid for p, v in enumerate(overlap[g])])
    else:
        best = {g: max(overlap[g], default=0) for g in valid}
        claimed = {overlap[g].index(best[g]): g for g in valid if best[g] > 0}

    gt_inds, best_overlaps = [], []
    for p, prior in enumerate(priors):
        best, best_box = 0, None
        for g in valid:
            if overlap[g][p] > best:
                best, best_box = overlap[g][p], g
        best_overlaps.append(float(best))
        if p in claimed:
            gt_inds.append(claimed[p] + 1)
        elif best_box is not None and best >= pos_iou_thr:
            gt_inds.append(best_box + 1)
        elif best >= neg_iou_thr:
            gt_inds.append(-1)
        else:
            covered = ignore_iof_thr > 0 and any(
                intersection(prior, box) / area(prior) > ignore_iof_thr
                for box in ignored
                if takes_part(box)
            )
            gt_inds.append(-1 if covered else 0)
    return gt_inds, best_overlaps


def naive_greedy(pairs):
    """The best (overlap, box, prior) of all, then the best of the rest: the box of each prior.

    Among equal overlaps, the lower box and then the lower prior come first.
    """
    claimed, done = {}, set()
    for overlap, g, p in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if overlap > 0 and g not in done and p not in claimed:
            claimed[p] = g
            done.add(g)
    return claimed


def clear_cut(boxes, priors, gap=2e-5):
    """Whether rounding cannot change a match: no near ties, no overlap near the threshold."""
    table = [[iou(box, prior) for prior in priors] for box in boxes]
    for row in table:
        best = sorted(row, reverse=True)[:12]
        if any(a - b < gap for a, b in zip(best, best[1:])):
            return False
    for column in zip(*table):
        best = sorted(column, reverse=True)
        if any(abs(a - 0.5) < gap for a in best):
            return False
        if len(best) > 1 and best[0] > 0 and best[0] - best[1] < gap:
            return False
    return True


def clear_cut_boxes(count, seed, priors, size=64, smallest=12, largest=48):
    """`count` random boxes on which every correct matching must agree."""
    rng, boxes = random.Random(seed), []
    while len(boxes) < count:
        w, h = rng.uniform(smallest, largest), rng.uniform(smallest, largest)
        x, y = rng.uniform(0, size - w), rng.uniform(0, size - h)
        box = [round(v, 3) for v in (x, y, x + w, y + h)]
        if clear_cut([*boxes, box], priors):
            boxes.append(box)
    return boxes


@cache
def tiny_boxes(count, seed):
    """Such boxes for the tiny priors."""
    return clear_cut_boxes(count, seed, PRIORS)


# -------------------------------------------------------------------------------- prediction


def predicted_box(prior, delta):
    """The box that a delta makes of a prior, as four numbers; of tensors, with a gradient."""
    pw, ph = prior[2] - prior[0], prior[3] - prior[1]
    x = (prior[0] + prior[2]) / 2 + 0.1 * delta[0] * pw
    y = (prior[1] + prior[3]) / 2 + 0.1 * delta[1] * ph
    w, h = pw * math.e ** (0.2 * delta[2]), ph * math.e ** (0.2 * delta[3])
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def clipped(box, shape):
    """A box clipped to an image of `shape` (h, w)."""
    return [min(max(v, 0), limit) for v, limit in zip(box, (shape[1], shape[0]) * 2)]


def naive_nms(boxes, scores, threshold):
    """Indices of the boxes that stay, best first."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def naive_detections(scores, boxes, score_thr, nms_pre, iou_thr, max_per_img, class_agnostic=False):
    """Detections (score, label, box) of one image, best first, from probabilities (P, C)."""
    found = []
    for c in range(len(scores[0])):
        passed = [p for p in range(len(boxes)) if scores[p][c] > score_thr]
        best = sorted(passed, key=lambda p: -scores[p][c])[:nms_pre]
        found.append([(scores[p][c], c, boxes[p]) for p in best])
    kept = []
    for group in [sum(found, [])] if class_agnostic else found:
        stay = naive_nms([box for *_, box in group], [score for score, *_ in group], iou_thr)
        kept += [group[i] for i in stay]
    return sorted(kept, key=lambda d: -d[0])[:max_per_img]


def naive_predict(
    scores, deltas, priors=PRIORS, shape=(64, 64), score_thr=0.01, nms_pre=400, iou_thr=0.45,
    max_per_img=200, sigmoid=False,
):  # fmt: skip
    """Detections of one image from scores (P, C + 1), with `sigmoid` (P, C), and deltas (P, 4)."""
    scores = scores.double()
    scores = (scores.sigmoid() if sigmoid else scores.softmax(-1)[:, :-1]).tolist()
    boxes = [clipped(predicted_box(p, d), shape) for p, d in zip(priors, deltas.tolist())]
    return naive_detections(scores, boxes, score_thr, nms_pre, iou_thr, max_per_img)
