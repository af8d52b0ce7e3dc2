"""Post-processing against plain loops over images, classes and boxes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_plugin.models.postprocess import detect, filter_scores, is_plain_nms, suppress
from tests.support.helpers import naive_nms

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
    nms_pre=st.sampled_from([-1, 0, 1, 3, 100]),
    score_thr=st.sampled_from([0.0, 0.5, 0.9, 1.0, 60 / 121, 119 / 121, 120 / 121]),
)
def test_the_filter_keeps_the_best_of_each_image_and_class(seed, nms_pre, score_thr):
    """A score has to exceed the threshold, which may be one of the 120 scores."""
    scores = distinct_scores(2, 20, 3, seed=seed)
    found = filter_scores(scores, score_thr, nms_pre)
    expected = []
    for image in range(2):
        for label in range(3):
            ranked = sorted(((scores[image, p, label].item(), p) for p in range(20)), reverse=True)
            passed = [(image, p, label, score) for score, p in ranked if score > score_thr]
            expected += passed if nms_pre < 0 else passed[:nms_pre]
    result = zip(found.image, found.prior, found.label, found.score, strict=True)
    assert [tuple(x.item() for x in pair) for pair in result] == sorted(expected)


def test_of_equal_scores_the_first_priors_are_kept():
    """In a network that has not been trained, every class of every prior may have one score."""
    found = filter_scores(torch.full((2, 20, 50), 0.05), 0.01, 2)
    assert found.prior.tolist() == [0] * 50 + [1] * 50 + [0] * 50 + [1] * 50


@examples
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 60),
    class_agnostic=st.booleans(),
    far=st.sampled_from([0, 10**5]),
)
def test_only_boxes_of_one_class_and_image_compete(seed, count, class_agnostic, far):
    scores = distinct_scores(3, 20, 2, seed=seed)
    found = filter_scores(scores, 0, -1)
    index = torch.randperm(len(found.image), generator=torch.Generator().manual_seed(seed))[:count]
    found = found.select(index.sort().values)
    bboxes = random_boxes(count, seed) + far
    keep, score = suppress(bboxes.float(), found, 2, dict(NMS, class_agnostic=class_agnostic))
    assert torch.equal(score, found.score[keep])
    expected = []
    for image in range(3):
        for labels in [(0, 1)] if class_agnostic else [(0,), (1,)]:
            mine = [
                i
                for i, one in enumerate(zip(found.image.tolist(), found.label.tolist()))
                if one[0] == image and one[1] in labels
            ]
            left = naive_nms(bboxes[mine].tolist(), found.score[mine].tolist(), 0.45)
            expected += [mine[i] for i in left]
    assert sorted(keep.tolist()) == sorted(expected)


def plain_detections(scores, bboxes, score_thr, nms_pre, limit, with_nms):
    """Step by step, one image and one class after the other; without NMS all are kept."""
    for image, boxes in zip(scores, bboxes.tolist()):
        found = []
        for label in range(image.size(1)):
            values = image[:, label].tolist()
            order = sorted(range(len(boxes)), key=lambda p: -values[p])
            order = [p for p in order if values[p] > score_thr][:nms_pre]
            threshold = 0.45 if with_nms else 1
            left = naive_nms([boxes[p] for p in order], [values[p] for p in order], threshold)
            found += [(values[order[i]], label, *boxes[order[i]]) for i in left]
        yield sorted(found, reverse=True)[: limit if with_nms else None]


@examples
@given(
    seed=st.integers(0, 10**6),
    limit=st.sampled_from([0, 1, 5, 500]),
    nms_pre=st.sampled_from([10, 60, 400]),
    score_thr=st.sampled_from([0.0, 0.8]),
    with_nms=st.booleans(),
)
def test_detections_are_those_of_plain_loops(seed, limit, nms_pre, score_thr, with_nms):
    scores = distinct_scores(3, 90, 2, seed=seed)
    bboxes = torch.stack([random_boxes(90, seed + image, spread=25, side=40) for image in range(3)])
    bboxes[0, 45:] = random_boxes(45, seed, spread=3000)
    cfg = dict(score_thr=score_thr, nms_pre=nms_pre, nms=NMS, max_per_img=limit)
    results = detect_boxes(scores, bboxes, cfg, with_nms=with_nms)
    expected = plain_detections(scores, bboxes, score_thr, nms_pre, limit, with_nms)
    for result, image in zip(results, expected, strict=True):
        found = zip(result.scores.tolist(), result.labels.tolist(), *result.bboxes.T.tolist())
        assert list(found) == image


def test_boxes_are_clipped_before_they_compete():
    """Two boxes that overlap by more than the threshold only where the image is."""
    scores = torch.tensor([[[0.9], [0.8]]])
    bboxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 40]]])
    cfg = dict(nms=NMS)
    borders = torch.tensor([[10.0, 10, 10, 10]])
    assert detect_boxes(scores, bboxes, cfg)[0].scores.tolist() == pytest.approx([0.9, 0.8])
    assert detect_boxes(scores, bboxes, cfg, borders=borders)[0].bboxes.tolist() == [[0, 0, 10, 10]]


@pytest.mark.parametrize('with_nms', [True, False])
def test_non_finite_scores_and_boxes_give_no_detection(with_nms):
    nan, inf = torch.nan, torch.inf
    scores = torch.tensor([[[0.9, 0.8], [nan, 0.7], [0.6, 0.1], [0.5, 0.1], [0.4, 0.3]]])
    bboxes = torch.arange(5.0)[:, None] * 20 + torch.tensor([0.0, 0, 10, 10])
    bboxes[2, 0], bboxes[3, 3] = nan, inf
    cfg = dict(score_thr=0.2, nms=NMS)
    (found,) = detect_boxes(scores, bboxes[None], cfg, with_nms=with_nms)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8, 0.4, 0.3]))
    assert found.labels.tolist() == [0, 1, 0, 1]


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
