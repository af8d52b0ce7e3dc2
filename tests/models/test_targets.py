"""Targets: what the naive matching gives each prior, whatever faults the ground truth has."""

import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes
from torch.testing import assert_close

from ssd_plugin.models.targets import get_targets
from tests.support import helpers as h

GOOD = h.tiny_boxes(3, 2)
COVER = [[2.0, 2, 62, 30], [5, 5, 5, 9]]  # an ignored box, and one without area


def targets(truth, ignored=None, metas=None, **options):
    assigner = TASK_UTILS.build(dict(type='BatchMaxIoUAssigner', **options))
    metas = h.image_metas(len(truth)) if metas is None else metas
    return get_targets(torch.tensor(h.PRIORS), assigner, 3, truth, metas, ignored)


@pytest.mark.parametrize('iof', [-1, 0.5])
@pytest.mark.parametrize('counts', [(1,), (3, 0, 6), (0, 1), (0, 0)])
def test_targets_are_those_of_the_naive_matching(counts, iof):
    boxes = [h.tiny_boxes(count, seed) for seed, count in enumerate(counts)]
    labels = [[g % 3 for g in range(count)] for count in counts]
    ignored = [[], COVER, COVER][: len(counts)]
    found = targets(
        list(map(h.instances, boxes, labels)), list(map(h.instances, ignored)), ignore_iof_thr=iof
    )
    num_matched = 0
    for b, (own, classes) in enumerate(zip(boxes, labels)):
        gt_inds, _ = h.naive_match(h.PRIORS, own, ignored=ignored[b], ignore_iof_thr=iof)
        pairs = list(zip(gt_inds, h.PRIORS))
        assert found.gt_inds[b].tolist() == gt_inds
        assert found.matched[b].tolist() == [g > 0 for g in gt_inds]
        assert found.labels[b].tolist() == [classes[g - 1] if g > 0 else 3 for g in gt_inds]
        assert found.weights[b].tolist() == [float(g >= 0) for g in gt_inds]
        expected = h.as_boxes([own[g - 1] if g > 0 else prior for g, prior in pairs])
        assert torch.equal(found.bboxes[b], expected)
        num_matched += sum(g > 0 for g in gt_inds)
    assert found.avg_factor == max(num_matched, 1)


CANNOT_BE_TRAINED_ON = [
    *([10, 10, 10, 30], [10, 10, 30, 10], [20, 20, 20, 20], [0, 0, 0, 0]),  # without area
    *([30, 10, 10, 30], [30, 30, 10, 10]),  # inside out
    *([h.NAN, 10, 20, 30], [h.NAN] * 4, [10, 10, h.INF, 30], [-h.INF, -h.INF, h.INF, h.INF]),
    *([-20, 10, -2, 30], [66, 10, 90, 30], [10, -30, 30, -3], [10, 66, 30, 80]),  # outside
]


def test_boxes_that_cannot_be_trained_on_leave_the_targets_as_they_are_without_them():
    bad = CANNOT_BE_TRAINED_ON
    expected = targets([h.instances(GOOD, [0, 1, 2]), h.instances([]), h.instances(GOOD[:1], [2])])
    assert expected.avg_factor > 1
    images = [(GOOD + bad, [0, 1, 2]), (bad, []), (GOOD[:1] + bad, [2])]
    found = targets([h.instances(b, own + [0] * (len(b) - len(own))) for b, own in images])
    assert_close(found, expected, rtol=0, atol=0)
    # In front of a good box, they only change its number.
    found = targets([h.instances(bad + GOOD, [1] * len(bad) + [0, 1, 2])])
    for name in ('labels', 'weights', 'bboxes', 'matched'):
        assert torch.equal(getattr(found, name)[0], getattr(expected, name)[0])


def test_a_box_in_the_padding_around_its_image_takes_no_part():
    """The first image is smaller than the batch; the second has the same box inside."""
    metas = h.image_metas(1, shape=(32, 64)) + h.image_metas(1)
    truth = [h.instances([[4, 40, 20, 60]], [1])] * 2
    assert targets(truth, metas=metas).matched.any(1).tolist() == [False, True]
    assert not targets(truth[:1], metas=metas[:1]).matched.any()


def test_boxes_may_be_mmdetection_s_box_type():
    truth, ignored = h.instances(GOOD, [0, 1, 2]), h.instances(COVER)
    expected = targets([truth], [ignored], ignore_iof_thr=0.5)
    assert not expected.weights.all()
    truth.bboxes, ignored.bboxes = HorizontalBoxes(truth.bboxes), HorizontalBoxes(ignored.bboxes)
    assert_close(targets([truth], [ignored], ignore_iof_thr=0.5), expected, rtol=0, atol=0)


@pytest.mark.parametrize('ignored', [None, [None, None], [h.instances([]), None]])
def test_images_may_come_without_ignored_boxes(ignored):
    """MMDetection gives None for an image whose sample has none."""
    truth = [h.instances(GOOD, [0, 1, 2]), h.instances(GOOD, [2, 2, 2])]
    expected = targets(truth, [h.instances([])] * 2, ignore_iof_thr=0.5)
    assert_close(targets(truth, ignored, ignore_iof_thr=0.5), expected, rtol=0, atol=0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_any_assigner_of_batches_gets_the_ground_truth_padded_to_one_box_at_least(dtype):
    """And the ignored boxes, which may be none; both in float32, whatever they come in."""
    seen = []

    class Another:
        def assign_batch(self, *args):
            seen.append(args)
            return TASK_UTILS.build(dict(type='BatchMaxIoUAssigner')).assign_batch(*args)

    empty, one, other = h.instances([]), h.instances([[5, 6, 30, 28]], [2]), h.instances(COVER[:1])
    for image in (empty, one, other):
        image.bboxes = image.bboxes.to(dtype)
    for truth, ignored in (([one, empty], [None, other]), ([empty] * 2, [empty] * 2)):
        get_targets(torch.tensor(h.PRIORS), Another(), 3, truth, h.image_metas(2), ignored)
    for priors, bboxes, *_, ignored in seen:
        assert torch.equal(priors, torch.tensor(h.PRIORS))
        assert bboxes.dtype == ignored.dtype == torch.float32
    (_, bboxes, labels, mask, ignored), (_, no_bboxes, no_labels, no_mask, none_ignored) = seen
    assert bboxes.tolist() == [[[5, 6, 30, 28]], [[0, 0, 0, 0]]]
    assert labels.tolist() == [[2], [-1]] and mask.tolist() == [[True], [False]]
    assert ignored.tolist() == [[[0, 0, 0, 0]], COVER[:1]]
    assert no_bboxes.shape == (2, 1, 4) and none_ignored.shape == (2, 0, 4)
    assert no_labels.tolist() == [[-1], [-1]] and no_mask.tolist() == [[False], [False]]
