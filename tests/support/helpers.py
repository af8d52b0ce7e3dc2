"""The method, written down once more as naive loops: what the tests compare the package with.

Letters as in the package: B images, P priors, G boxes of an image, C foreground classes, K scores.
"""

import math
import random
from fractions import Fraction

import ssd_plugin  # noqa: F401  (first: it prepares what MMDetection needs)

# isort: split
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData

# Tensors here are small: a second thread would cost more than it gives.
torch.set_num_threads(1)

# The table of the models: sizes m_0 .. m_last, then M_last.
SSD300 = dict(
    input_size=300,
    strides=[8, 16, 32, 64, 100, 300],
    ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
    feature_sizes=[38, 19, 10, 5, 3, 1],
    per_cell=[4, 6, 6, 6, 4, 4],
    per_level=[5776, 2166, 600, 150, 36, 4],
    total=8732,
)
SSD512 = dict(
    input_size=512,
    strides=[8, 16, 32, 64, 128, 256, 512],
    ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
    feature_sizes=[64, 32, 16, 8, 4, 2, 1],
    per_cell=[4, 6, 6, 6, 6, 4, 4],
    per_level=[16384, 6144, 1536, 384, 96, 16, 4],
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
    config = dict(
        type='SSDPriorGenerator',
        strides=model['strides'],
        ratios=model['ratios'],
        min_sizes=model['sizes'][:-1],
        max_sizes=model['sizes'][1:],
        input_size=model['input_size'],
    )
    config.update(changes)
    return config


def model_priors(name, dtype=torch.float32):
    model = MODEL_TABLE[name]
    generator = TASK_UTILS.build(prior_config(model))
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


def tiny_head(num_classes=3, **changes):
    """An initialised `SSDMultiBoxHead` over the tiny priors."""
    config = dict(
        type='SSDMultiBoxHead',
        num_classes=num_classes,
        in_channels=TINY_CHANNELS,
        anchor_generator=prior_config(TINY),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
        train_cfg=dict(assigner=dict(type='BatchMaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5)),
        test_cfg=TINY_TEST_CFG,
    )
    config.update(changes)
    torch.manual_seed(0)
    head = MODELS.build(config)
    head.init_weights()
    return head


def tiny_features(batch_size, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch_size, c, n, n, generator=generator).requires_grad_(requires_grad)
        for c, n in zip(TINY_CHANNELS, TINY['feature_sizes'])
    ]


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
    return [
        dict(
            img_shape=shape,
            batch_input_shape=(64, 64),
            pad_shape=(64, 64),
            ori_shape=(round(shape[0] / scale[1]), round(shape[1] / scale[0])),
            scale_factor=scale,
        )
        for _ in range(batch_size)
    ]


def instances(boxes, labels=None):
    """Ground truth of one image from a list of boxes."""
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    if labels is None:
        labels = [0] * len(boxes)
    return InstanceData(bboxes=boxes, labels=torch.as_tensor(labels, dtype=torch.int64))


# ------------------------------------------------------------------------------------ priors


def naive_priors(model):
    """Every prior of every cell, box by box, as nested Python lists: one list per level."""
    levels = []
    sizes = zip(model['sizes'][:-1], model['sizes'][1:])
    for stride, (m, big), ratios, side in zip(
        model['strides'], sizes, model['ratios'], model['feature_sizes']
    ):
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
    priors,
    boxes,
    mask=None,
    pos_iou_thr=0.5,
    neg_iou_thr=0.5,
    bipartite=True,
    ignored=(),
    ignore_iof_thr=-1,
):
    """Matching of one image: `gt_inds` and `max_overlaps`, two lists of length P."""
    mask = [True] * len(boxes) if mask is None else mask
    valid = [g for g, box in enumerate(boxes) if mask[g] and takes_part(box)]
    overlap = {g: [iou(boxes[g], prior) for prior in priors] for g in valid}

    claimed = {}  # prior -> the box that claims it, whatever the overlap
    if bipartite:
        pairs = [(-overlap[g][p], g, p) for g in valid for p in range(len(priors))]
        done = set()
        for minus_iou, g, p in sorted(pairs):
            if minus_iou < 0 and g not in done and p not in claimed:
                claimed[p] = g
                done.add(g)
    else:
        for g in valid:
            if max(overlap[g], default=0) > 0:
                claimed[overlap[g].index(max(overlap[g]))] = g

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


# -------------------------------------------------------------------------------------- loss


def cross_entropy(scores, label):
    """-log softmax(scores)[label], of one prior."""
    return torch.logsumexp(scores, 0) - scores[label]


def smooth_cross_entropy(scores, label, smoothing=0.1):
    """Cross entropy with a target of which `smoothing` is shared out among all K scores."""
    each = [cross_entropy(scores, k) for k in range(len(scores))]
    return (1 - smoothing) * each[label] + smoothing * sum(each) / len(each)


def weighted(loss, weights):
    """A loss times the weight of the prior's class."""
    return lambda scores, label: weights[label] * loss(scores, label)


def sigmoid_cross_entropy(scores, label, pos_weights=None):
    """Sum over the classes of binary cross entropy; a background label is no class at all."""
    total = scores.new_zeros(())
    for c, score in enumerate(scores):
        p = torch.sigmoid(score)
        weight = pos_weights[c] if pos_weights else 1
        total = total - (weight * torch.log(p) if c == label else torch.log(1 - p))
    return total


def focal_loss(scores, label, gamma=2.0, alpha=0.25):
    total = scores.new_zeros(())
    for c, score in enumerate(scores):
        p = torch.sigmoid(score)
        if c == label:
            total = total - alpha * (1 - p) ** gamma * torch.log(p)
        else:
            total = total - (1 - alpha) * p**gamma * torch.log(1 - p)
    return total


def quality_focal_loss(scores, label, quality, beta=2.0):
    """Generalized Focal Loss, formula 5: the target for the prior's class is its quality."""
    total = scores.new_zeros(())
    for c, score in enumerate(scores):
        p, y = torch.sigmoid(score), quality if c == label else 0.0
        entropy = -(y * torch.log(p) + (1 - y) * torch.log(1 - p))
        total = total + abs(y - p) ** beta * entropy
    return total


def varifocal_loss(scores, label, quality, gamma=2.0, alpha=0.75):
    """VarifocalNet, formula 2: negatives are weighted down, positives by their quality."""
    total = scores.new_zeros(())
    for c, score in enumerate(scores):
        p = torch.sigmoid(score)
        if c == label and quality > 0:
            total = total - quality * (quality * torch.log(p) + (1 - quality) * torch.log(1 - p))
        else:
            total = total - alpha * p**gamma * torch.log(1 - p)
    return total


def naive_mining(losses, positive, minable, ratio=3, min_negatives=0):
    """The hardest negatives of one image: a list of indices."""
    k = min(max(ratio * sum(positive), min_negatives), sum(minable))
    hardest = sorted((p for p in range(len(losses)) if minable[p]), key=lambda p: -losses[p].item())
    return hardest[:k]


def naive_mining_loss(
    scores,
    labels,
    background,
    weights=None,
    ratio=3,
    min_negatives=0,
    loss=cross_entropy,
    quality=None,
):
    """Sum over positives and hardest negatives, and the number of positives, image by image.

    A loss that learns quality gets that of each prior, from the table `quality` (B, P).
    """
    total, num_pos = scores.sum() * 0, 0
    for b in range(len(scores)):
        losses = [
            loss(scores[b, p], int(labels[b, p]), *([] if quality is None else [quality[b][p]]))
            for p in range(scores.shape[1])
        ]
        used = [weights is None or bool(weights[b, p] > 0) for p in range(len(losses))]
        positive = [used[p] and int(labels[b, p]) != background for p in range(len(losses))]
        minable = [used[p] and int(labels[b, p]) == background for p in range(len(losses))]
        for p in range(len(losses)):
            if positive[p]:
                total = total + losses[p] * (1 if weights is None else weights[b, p])
        for p in naive_mining(losses, positive, minable, ratio, min_negatives):
            total = total + losses[p] * (1 if weights is None else weights[b, p])
        num_pos += sum(positive)
    return total, num_pos


def encode(prior, box):
    """The regression target of a prior matched to a box."""
    pw, ph = prior[2] - prior[0], prior[3] - prior[1]
    gw, gh = box[2] - box[0], box[3] - box[1]
    dx = (box[0] + box[2]) / 2 - (prior[0] + prior[2]) / 2
    dy = (box[1] + box[3]) / 2 - (prior[1] + prior[3]) / 2
    return [dx / pw / 0.1, dy / ph / 0.1, math.log(gw / pw) / 0.2, math.log(gh / ph) / 0.2]


def smooth_l1(difference):
    d = abs(difference)
    return 0.5 * d * d if d.item() < 1 else d - 0.5


def offset_loss(coordinate_loss):
    """Regression as in the paper: a loss of each of the four differences of offsets, summed."""

    def loss(prior, delta, box):
        return sum(coordinate_loss(d - t) for d, t in zip(delta, encode(prior, box)))

    return loss


def pixel_loss(coordinate_loss):
    """A loss of each of the four differences of coordinates, in pixels, summed."""

    def loss(prior, delta, box):
        return sum(coordinate_loss(d - t) for d, t in zip(predicted_box(prior, delta), box))

    return loss


def box_loss(loss_of_boxes):
    """A loss of the predicted box and the object's."""
    return lambda prior, delta, box: loss_of_boxes(predicted_box(prior, delta), box)


def predicted_box(prior, delta):
    """`decode` for a tensor (4,) with a gradient: a list of four scalars."""
    pw, ph = prior[2] - prior[0], prior[3] - prior[1]
    x = (prior[0] + prior[2]) / 2 + 0.1 * delta[0] * pw
    y = (prior[1] + prior[3]) / 2 + 0.1 * delta[1] * ph
    w, h = pw * torch.exp(0.2 * delta[2]), ph * torch.exp(0.2 * delta[3])
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def enclosing(a, b):
    return [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]


def iou_loss(a, b):
    return -torch.log(torch.clamp(iou(a, b), min=1e-6))


def giou_loss(a, b):
    """Formula of arXiv:1902.09630: the IoU less the share of the hull that neither box covers."""
    hull, union = area(enclosing(a, b)), area(a) + area(b) - intersection(a, b)
    return 1 - iou(a, b) + (hull - union) / hull


def diou_loss(a, b):
    """arXiv:1911.08287, formula 7: centre distance over the hull's diagonal, both squared."""
    hull = enclosing(a, b)
    distance = sum(((a[i] + a[i + 2]) / 2 - (b[i] + b[i + 2]) / 2) ** 2 for i in (0, 1))
    diagonal = sum((hull[i + 2] - hull[i]) ** 2 for i in (0, 1))
    return 1 - iou(a, b) + distance / diagonal


def ciou_loss(a, b):
    """arXiv:2005.03572, formulas 8 to 12: DIoU and the difference of aspect ratios."""
    angles = [torch.atan((x[2] - x[0]) / torch.as_tensor(x[3] - x[1])) for x in (a, b)]
    v = 4 / math.pi**2 * (angles[1] - angles[0]) ** 2
    overlap = iou(a, b)
    alpha = (v / (1 - overlap + v)).detach() if overlap > 0.5 else 0
    return diou_loss(a, b) + alpha * v


PAPER_REGRESSION = offset_loss(smooth_l1)


def naive_head_loss(
    scores,
    deltas,
    priors,
    boxes,
    labels,
    ignored=None,
    ignore_iof_thr=-1,
    loss=cross_entropy,
    sigmoid=False,
    learns_quality=False,
    min_negatives=0,
    regression=PAPER_REGRESSION,
):
    """L_conf / N and L_loc / N of a batch, with `boxes` and `labels` as lists, image by image.

    `loss` takes the scores and the label of a prior, and the IoU of its predicted box with its
    object if it learns quality; `regression` a prior, its deltas and its object. With
    `min_negatives=math.inf` nothing is mined, all priors count.
    """
    background = scores.shape[-1] - (not sigmoid)
    conf, loc, num_pos = scores.sum() * 0, deltas.sum() * 0, 0
    for b in range(len(scores)):
        gt_inds, _ = naive_match(
            priors,
            boxes[b],
            ignored=ignored[b] if ignored else (),
            ignore_iof_thr=ignore_iof_thr,
        )
        matched = {p: boxes[b][g - 1] for p, g in enumerate(gt_inds) if g > 0}
        target = [labels[b][g - 1] if g > 0 else background for g in gt_inds]
        weight = [0.0 if g < 0 else 1.0 for g in gt_inds]
        quality = [0.0] * len(priors)
        for p, box in matched.items():
            quality[p] = float(iou(predicted_box(priors[p], deltas[b, p].detach()), box))
        image_conf, image_pos = naive_mining_loss(
            scores[b : b + 1],
            torch.tensor([target]),
            background,
            torch.tensor([weight]),
            min_negatives=min_negatives,
            loss=loss,
            quality=[quality] if learns_quality else None,
        )
        conf, num_pos = conf + image_conf, num_pos + image_pos
        for p, box in matched.items():
            loc = loc + regression(priors[p], deltas[b, p], box)
    return conf / max(num_pos, 1), loc / max(num_pos, 1)


# -------------------------------------------------------------------------------- prediction


def decode(prior, delta, shape=None):
    """The box that a delta makes of a prior, clipped to an image of `shape` (h, w)."""
    pw, ph = prior[2] - prior[0], prior[3] - prior[1]
    x = (prior[0] + prior[2]) / 2 + 0.1 * delta[0] * pw
    y = (prior[1] + prior[3]) / 2 + 0.1 * delta[1] * ph
    w, h = pw * math.exp(0.2 * delta[2]), ph * math.exp(0.2 * delta[3])
    box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    if shape is not None:
        box = [min(max(v, 0), limit) for v, limit in zip(box, (shape[1], shape[0]) * 2)]
    return box


def naive_nms(boxes, scores, threshold):
    """Indices of the boxes that stay, best first."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def naive_predict(
    scores,
    deltas,
    priors,
    shape,
    score_thr=0.01,
    nms_pre=400,
    iou_thr=0.45,
    max_per_img=200,
    sigmoid=False,
):
    """Detections (score, label, box) of one image from scores (P, C + 1) and deltas (P, 4).

    With `sigmoid` the scores are (P, C), without background.
    """
    scores = scores.double()
    probabilities = (scores.sigmoid() if sigmoid else scores.softmax(-1)[:, :-1]).tolist()
    boxes = [decode(prior, delta, shape) for prior, delta in zip(priors, deltas.tolist())]
    found = []
    for c in range(len(probabilities[0])):
        candidates = [p for p in range(len(priors)) if probabilities[p][c] > score_thr]
        candidates = sorted(candidates, key=lambda p: -probabilities[p][c])[:nms_pre]
        of_class = [probabilities[p][c] for p in candidates]
        for i in naive_nms([boxes[p] for p in candidates], of_class, iou_thr):
            found.append((of_class[i], c, boxes[candidates[i]]))
    return sorted(found, key=lambda d: -d[0])[:max_per_img]
