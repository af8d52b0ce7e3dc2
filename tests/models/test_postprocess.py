"""Post-processing's short cuts: the same detections as without them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import nms

from ssd_plugin.models import postprocess
from ssd_plugin.models.candidates import filter_scores, rank_in_group
from ssd_plugin.models.postprocess import detect, grouped_nms
from tests.support.helpers import naive_nms

examples = settings(deadline=None, max_examples=60)


def random_boxes(count, seed, spread=60, side=30):
    """Boxes in whole pixels, some left of and above the image."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(-10, spread, (count, 2), generator=generator)
    return torch.cat([corner, corner + torch.randint(5, side, (count, 2), generator=generator)], 1)


def distinct_scores(*shape, seed=0):
    """No two alike, so that there is one order."""
    size = torch.Size(shape).numel()
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return ((order + 1) / (size + 1)).reshape(shape)


@examples
@given(groups=st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_the_rank_of_a_candidate_is_how_many_of_its_group_stand_before_it(groups):
    expected = [groups[:i].count(group) for i, group in enumerate(groups)]
    assert rank_in_group(torch.tensor(groups)).tolist() == expected


@examples
@given(
    seed=st.integers(0, 10**6),
    most=st.integers(1, 70),
    nms_pre=st.sampled_from([-1, 1, 3, 100]),
    score_thr=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
)
def test_the_filter_keeps_the_best_of_each_image_and_class(seed, most, nms_pre, score_thr):
    table = distinct_scores(2, 20, 3, seed=seed)
    found = filter_scores(table.mT, table.amax(2), score_thr, nms_pre, most)
    expected = []
    for b in range(2):
        pairs = [(table[b, p, c].item(), c, p) for p in range(20) for c in range(3)]
        passed = [pair for pair in sorted(pairs, reverse=True) if pair[0] > score_thr]
        # The `most` best, and with them all that are better than the last of as many priors.
        best = sorted((max(table[b, p].tolist()) for p in range(20)), reverse=True)
        last = best[most - 1] if most < 20 else 0
        kept = [pair for pair in passed if pair[0] >= last][: 2 * most]
        assert kept[:most] == passed[:most]
        if found.is_all[b]:
            assert kept == passed
        else:
            assert len(passed) >= most
        kept_of_class = [0, 0, 0]
        for score, c, p in kept:
            kept_of_class[c] += 1
            if nms_pre < 0 or kept_of_class[c] <= nms_pre:
                expected.append((b, p, c, score))
    result = zip(found.image, found.prior, found.label, found.score, strict=True)
    assert [tuple(x.item() for x in pair) for pair in result] == sorted(expected)


def test_of_many_equal_scores_no_more_are_kept_than_of_others():
    """A network without training: every class of every prior has the same score."""
    scores = torch.full((2, 20, 500), 0.05)
    found = filter_scores(scores, scores.amax(1), 0.01, -1, 30)
    assert found.image.bincount().tolist() == [60, 60]
    assert found.is_all.tolist() == [False, False]
    limited = filter_scores(scores, scores.amax(1), 0.01, 2, 30)
    assert len(limited.image) < 120
    assert (limited.image * 20 + limited.label).bincount().max() == 2


@pytest.mark.parametrize('looks', [True, False])
@examples
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 60),
    groups=st.integers(1, 9),
    per_call=st.sampled_from([1, 7, 256]),
)
def test_only_boxes_of_a_group_compete(looks, seed, count, groups, per_call):
    boxes, scores = random_boxes(count, seed), distinct_scores(count, seed=seed)
    group = torch.randint(groups, (count,), generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postprocess, 'BOXES_PER_CALL', per_call)
        patch.setattr(postprocess, 'values_are_free', lambda tensor: looks)
        found = grouped_nms(boxes.float(), scores, group, 0.45).tolist()
    expected = []
    for number in range(groups):
        mine = (group == number).nonzero()[:, 0]
        left = naive_nms(boxes[mine].tolist(), scores[mine].tolist(), 0.45)
        expected += mine[left].tolist()
    assert sorted(found) == sorted(expected)


def crowded(seed, images=3, priors=90, classes=2):
    """Scores and boxes of which NMS leaves few, so that a short list is often too short."""
    scores = distinct_scores(images, priors, classes, seed=seed)
    boxes = torch.stack([random_boxes(priors, seed + b, spread=25, side=40) for b in range(images)])
    boxes[0, priors // 2 :] = random_boxes(priors - priors // 2, seed, spread=3000)
    return scores, lambda image, prior: boxes[image, prior].float()


def plain_detections(scores, decode, score_thr, nms_pre, limit):
    """Step by step with all candidates, one image and class after the other."""
    for b, image in enumerate(scores):
        found = []
        for c in range(image.size(1)):
            order = image[:, c].argsort(descending=True)
            order = order[image[order, c] > score_thr][:nms_pre]
            boxes = decode(torch.full_like(order, b), order)
            left = order[nms(boxes, image[order, c], 0.45)]
            found += [(image[p, c].item(), c, *boxes_of(decode, b, p)) for p in left]
        yield sorted(found, reverse=True)[:limit]


def boxes_of(decode, image, prior):
    return decode(torch.tensor([image]), prior.reshape(1))[0].tolist()


@examples
@given(
    seed=st.integers(0, 10**6),
    limit=st.sampled_from([0, 1, 5, 20, 500]),
    nms_pre=st.sampled_from([10, 60, 400]),
    score_thr=st.sampled_from([0.0, 0.8]),
)
def test_a_short_list_of_candidates_changes_no_detection(seed, limit, nms_pre, score_thr):
    scores, decode = crowded(seed)
    cfg = dict(
        score_thr=score_thr,
        nms_pre=nms_pre,
        nms=dict(type='nms', iou_threshold=0.45),
        max_per_img=limit,
    )
    expected = list(plain_detections(scores, decode, score_thr, nms_pre, limit))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postprocess, 'SHORTLIST', 1)
        patch.setattr(postprocess, 'GROWTH', 2)
        results = detect(scores.mT, decode, cfg)
    assert len(results) == len(scores)
    for result, image in zip(results, expected):
        found = zip(result.scores.tolist(), result.labels.tolist(), *result.bboxes.T.tolist())
        assert list(found) == image


def test_the_list_grows_until_it_suffices(monkeypatch):
    """A hundred candidates at one place, then one elsewhere: the second detection."""
    looked_at = []
    plain = filter_scores

    def spy(*args):
        looked_at.append(args[-1])
        return plain(*args)

    monkeypatch.setattr(postprocess, 'filter_scores', spy)
    monkeypatch.setattr(postprocess, 'SHORTLIST', 5)
    monkeypatch.setattr(postprocess, 'GROWTH', 4)
    scores = torch.linspace(0.9, 0.5, 101).reshape(1, 101, 1)
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 100 + [[50.0, 50, 60, 60]])
    cfg = dict(nms=dict(type='nms', iou_threshold=0.45), nms_pre=400, max_per_img=2)
    result = detect(scores.mT, lambda image, prior: boxes[prior], cfg)[0]
    assert looked_at == [10, 40, 160]
    assert result.bboxes.tolist() == [[0, 0, 10, 10], [50, 50, 60, 60]]
    torch.testing.assert_close(result.scores, torch.tensor([0.9, 0.5]))
