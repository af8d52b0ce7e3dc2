"""Post-processing against plain loops over images, classes and boxes."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssd_plugin.models.postprocess import detect, is_plain_nms
from tests.support.helpers import naive_detections

examples = settings(deadline=None, max_examples=50)
NMS = dict(type='nms', iou_threshold=0.45)


class BoxesAsDeltas:
    """A coder whose deltas are the boxes themselves, so that tests can name boxes."""

    def decode(self, priors, deltas):
        return deltas


def detect_boxes(scores, bboxes, cfg, **options):
    """`detect` of scores (B, P, C) and boxes (B, P, 4)."""
    return detect(scores, bboxes.float(), bboxes[0], BoxesAsDeltas(), cfg, **options)


def random_boxes(count, seed, spread=60, side=30):
    """Boxes in whole pixels, some of them left of and above the image."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(-10, spread, (count, 2), generator=generator)
    return torch.cat([corner, corner + torch.randint(5, side, (count, 2), generator=generator)], 1)


def distinct_scores(*shape, seed=0):
    """No two alike, so that there is one order."""
    size = torch.Size(shape).numel()
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return ((order.double() + 1) / (size + 1)).reshape(shape)


@examples
@given(
    seed=st.integers(0, 10**6),
    limit=st.sampled_from([-1, 0, 1, 5, 500]),
    nms_pre=st.sampled_from([-1, 0, 1, 10, 60, 89]),
    score_thr=st.sampled_from([0.0, 0.8, 1.0, 270 / 541, 539 / 541, 540 / 541]),
    with_nms=st.booleans(),
    class_agnostic=st.booleans(),
    far=st.sampled_from([0, 10**5]),
)
@example(1, -1, 89, 0.0, False, False, 0)
@example(1, -1, -1, 100 / 541, False, False, 0)
def test_detections_are_those_of_plain_loops(
    seed, limit, nms_pre, score_thr, with_nms, class_agnostic, far
):
    """A score has to exceed the threshold, which may be one of the 540 scores."""
    scores = distinct_scores(3, 90, 2, seed=seed)
    bboxes = torch.stack([random_boxes(90, seed + image, spread=25, side=40) for image in range(3)])
    bboxes[0, 45:] = random_boxes(45, seed, spread=3000)
    bboxes += far
    nms = dict(NMS, class_agnostic=class_agnostic)
    cfg = dict(score_thr=score_thr, nms_pre=nms_pre, nms=nms, max_per_img=limit)
    results = detect_boxes(scores, bboxes, cfg, with_nms=with_nms)
    num_pre = nms_pre if nms_pre >= 0 else None
    num_kept = limit if with_nms and limit >= 0 else None
    for result, image, boxes in zip(results, scores.tolist(), bboxes.tolist(), strict=True):
        expected = naive_detections(
            image, boxes, score_thr, num_pre, 0.45 if with_nms else 1, num_kept, class_agnostic
        )
        found = zip(result.scores.tolist(), result.labels.tolist(), result.bboxes.tolist())
        assert list(found) == expected


def test_of_equal_scores_the_first_priors_are_kept():
    """In a network that has not been trained, every class of every prior may have one score."""
    bboxes = torch.arange(20)[:, None] * 20 + torch.tensor([0, 0, 10, 10])
    cfg = dict(score_thr=0.01, nms_pre=2, nms=NMS)
    for found in detect_boxes(torch.full((2, 20, 50), 0.05), bboxes.repeat(2, 1, 1), cfg):
        assert sorted(found.labels.tolist()) == sorted([*range(50)] * 2)
        assert sorted(found.bboxes[:, 0].tolist()) == [0] * 50 + [20] * 50


def test_boxes_are_clipped_before_they_compete():
    """Two boxes that overlap by more than the threshold only where the image is."""
    scores = torch.tensor([[[0.9], [0.8]]])
    bboxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 40]]])
    cfg = dict(nms=NMS)
    borders = torch.tensor([[10.0, 10, 10, 10]])
    assert detect_boxes(scores, bboxes, cfg)[0].scores.tolist() == pytest.approx([0.9, 0.8])
    assert detect_boxes(scores, bboxes, cfg, borders=borders)[0].bboxes.tolist() == [[0, 0, 10, 10]]


@pytest.mark.parametrize(
    ('nms', 'plain'),
    [
        (NMS, True),
        (dict(iou_threshold=0.5), True),  # MMCV's default is this type
        (dict(NMS, class_agnostic=True), True),
        (dict(NMS, type='soft_nms'), False),
        (dict(NMS, max_num=3), False),
    ],
)
def test_plain_nms_is_the_one_that_only_removes_boxes(nms, plain):
    assert is_plain_nms(nms) is plain
