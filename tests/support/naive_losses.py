"""The losses of the method, and those of docs/losses.md, as naive loops over images and priors."""

import math

import torch
from mmdet.registry import MODELS

from tests.support import helpers as h

# -------------------------------------------------------- classification: scores (K,) and a label


def cross_entropy(scores, label):
    """-log softmax(scores)[label], of one prior."""
    return torch.logsumexp(scores, 0) - scores[label]


def smooth_cross_entropy(scores, label, smoothing=0.1):
    """Cross entropy with a target of which `smoothing` is shared out among all K scores."""
    each = [cross_entropy(scores, k) for k in range(len(scores))]
    return (1 - smoothing) * each[label] + smoothing * sum(each) / len(each)


def weighted_cross_entropy(scores, label, weights=(2, 1, 3, 0.5)):
    return weights[label] * cross_entropy(scores, label)


def sum_over_classes(own, others):
    """The sum of a loss of the prior's own class and of others; background is none of them.

    Both take the class, its probability p and what else the loss is given.
    """

    def loss(scores, label, *quality):
        each = enumerate(torch.sigmoid(scores))
        return sum((own if c == label else others)(c, p, *quality) for c, p in each)

    return loss


sigmoid_cross_entropy = sum_over_classes(lambda c, p: -torch.log(p), lambda c, p: -torch.log(1 - p))
weighted_sigmoid_cross_entropy = sum_over_classes(
    lambda c, p: -(2, 1, 3)[c] * torch.log(p), lambda c, p: -torch.log(1 - p)
)
focal_loss = sum_over_classes(
    lambda c, p: -0.25 * (1 - p) ** 2 * torch.log(p), lambda c, p: -0.75 * p**2 * torch.log(1 - p)
)


def binary_cross_entropy(p, target):
    return -(target * torch.log(p) + (1 - target) * torch.log(1 - p))


# Generalized Focal Loss, formula 5: the target for the prior's class is its quality q.
quality_focal_loss = sum_over_classes(
    lambda c, p, q: abs(q - p) ** 2 * binary_cross_entropy(p, q),
    lambda c, p, q: p**2 * binary_cross_entropy(p, 0),
)
# VarifocalNet, formula 2: negatives are weighted down, positives by their quality.
varifocal_loss = sum_over_classes(
    lambda c, p, q: q * binary_cross_entropy(p, q) if q > 0 else -0.75 * p**2 * torch.log(1 - p),
    lambda c, p, q: -0.75 * p**2 * torch.log(1 - p),
)
LEARN_QUALITY = (quality_focal_loss, varifocal_loss)


def naive_mining(losses, positive, minable, ratio=3, min_negatives=0):
    """The hardest negatives of one image: a list of indices."""
    k = min(max(ratio * sum(positive), min_negatives), sum(minable))
    hardest = sorted((p for p in range(len(losses)) if minable[p]), key=lambda p: -losses[p].item())
    return hardest[:k]


def naive_mining_loss(
    scores, labels, background, weights=None, ratio=3, min_negatives=0, loss=cross_entropy,
    quality=None,
):  # fmt: skip
    """Sum over positives and hardest negatives, and the number of positives, image by image.

    A loss that learns quality gets that of each prior, from the table `quality` (B, P).
    """
    weights = torch.ones(labels.shape) if weights is None else weights
    total, num_pos = scores.sum() * 0, 0
    for b, own in enumerate(labels.tolist()):
        extra = [[]] * len(own) if quality is None else [[q] for q in quality[b]]
        losses = [loss(scores[b, p], label, *extra[p]) for p, label in enumerate(own)]
        used = (weights[b] > 0).tolist()
        positive = [u and label != background for u, label in zip(used, own)]
        minable = [u and label == background for u, label in zip(used, own)]
        kept = [p for p in range(len(own)) if positive[p]]
        for p in kept + naive_mining(losses, positive, minable, ratio, min_negatives):
            total = total + losses[p] * weights[b, p]
        num_pos += sum(positive)
    return total, num_pos


# ------------------------------------------ regression: a prior, its deltas (4,) and its gt box


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


def delta_loss(coordinate_loss):
    """Regression as in the paper: a loss of each of the four differences of deltas, summed."""
    return lambda prior, delta, box: sum(
        coordinate_loss(d - t) for d, t in zip(delta, encode(prior, box))
    )


def pixel_loss(coordinate_loss):
    """A loss of each of the four differences of coordinates, in pixels, summed."""
    return box_loss(lambda a, b: sum(coordinate_loss(d - t) for d, t in zip(a, b)))


def box_loss(loss_of_boxes):
    """A loss of the predicted box and the ground-truth box."""
    return lambda prior, delta, box: loss_of_boxes(h.predicted_box(prior, delta), box)


def mmdetection_loss(name):
    """MMDetection's own loss of two boxes, or of two times four numbers."""
    loss = MODELS.build(dict(type=name))

    def each(a, b):
        a, b = (torch.stack([torch.as_tensor(x) for x in v])[None].float() for v in (a, b))
        return loss(a, b, reduction_override='none').sum()

    return each


def iou_loss(a, b):
    return -torch.log(torch.clamp(h.iou(a, b), min=1e-6))


def enclosing(a, b):
    return [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]


def giou_loss(a, b):
    """Formula of arXiv:1902.09630: the IoU less the share of the hull that neither box covers."""
    hull, union = h.area(enclosing(a, b)), h.area(a) + h.area(b) - h.intersection(a, b)
    return 1 - h.iou(a, b) + (hull - union) / hull


def diou_loss(a, b):
    """arXiv:1911.08287, formula 7: centre distance over the hull's diagonal, both squared."""
    hull = enclosing(a, b)
    distance = sum(((a[i] + a[i + 2]) / 2 - (b[i] + b[i + 2]) / 2) ** 2 for i in (0, 1))
    diagonal = sum((hull[i + 2] - hull[i]) ** 2 for i in (0, 1))
    return 1 - h.iou(a, b) + distance / diagonal


def ciou_loss(a, b):
    """arXiv:2005.03572, formulas 8 to 12: DIoU and the difference of aspect ratios."""
    angles = [torch.atan((x[2] - x[0]) / torch.as_tensor(x[3] - x[1])) for x in (a, b)]
    v = 4 / math.pi**2 * (angles[1] - angles[0]) ** 2
    overlap = h.iou(a, b)
    alpha = (v / (1 - overlap + v)).detach() if overlap > 0.5 else 0
    return diou_loss(a, b) + alpha * v


IOU_FORMULAS = dict(IoULoss=iou_loss, GIoULoss=giou_loss, DIoULoss=diou_loss, CIoULoss=ciou_loss)
PAPER_REGRESSION = delta_loss(smooth_l1)

# ---------------------------------------------------------------------------------------- both


def naive_head_loss(
    batch, loss=cross_entropy, sigmoid=False, min_negatives=0, ignore_iof_thr=-1,
    regression=PAPER_REGRESSION,
):  # fmt: skip
    """The two losses of a `Batch`, by name: L_conf / N and L_loc / N, image by image.

    With `min_negatives=INF` nothing is mined, all priors count.
    """
    scores, deltas = batch.scores, batch.deltas
    background = scores.shape[-1] - (not sigmoid)
    labels, weights, qualities, matches = [], [], [], []
    for b, (boxes, own) in enumerate(zip(batch.boxes, batch.labels)):
        ignored = batch.ignored[b] if batch.ignored else ()
        gt_inds, _ = h.naive_match(h.PRIORS, boxes, ignored=ignored, ignore_iof_thr=ignore_iof_thr)
        labels.append([own[g - 1] if g > 0 else background for g in gt_inds])
        weights.append([float(g >= 0) for g in gt_inds])
        qualities.append([0.0] * len(h.PRIORS))
        for p in (p for p, g in enumerate(gt_inds) if g > 0):
            matches.append((b, p, boxes[gt_inds[p] - 1]))
            predicted = h.predicted_box(h.PRIORS[p], deltas[b, p].tolist())
            qualities[b][p] = float(h.iou(predicted, matches[-1][2]))
    quality = qualities if loss in LEARN_QUALITY else None
    conf, num_pos = naive_mining_loss(
        scores, torch.tensor(labels), background, torch.tensor(weights),
        min_negatives=min_negatives, loss=loss, quality=quality,
    )  # fmt: skip
    loc = sum(
        (regression(h.PRIORS[p], deltas[b, p], box) for b, p, box in matches), deltas.sum() * 0
    )
    return dict(loss_cls=conf / max(num_pos, 1), loss_bbox=loc / max(num_pos, 1))


def assert_head_loss(found, expected, batch, **tolerance):
    """Both losses of a head are the expected ones, and so is what they pass back."""
    assert found.keys() == expected.keys() == {'loss_cls', 'loss_bbox'}
    for name, inputs in (('loss_cls', batch.scores), ('loss_bbox', batch.deltas)):
        h.assert_same_loss(found[name], expected[name], [inputs], **tolerance)
