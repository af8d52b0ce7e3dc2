"""Detections from scores before softmax: those that all probabilities give."""

from math import inf, nan

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ssd_plugin.models import logits as module
from ssd_plugin.models.logits import detect_from_logits, may_exceed, probabilities
from ssd_plugin.models.postprocess import detect

examples = settings(deadline=None, max_examples=200)
by_softmax_or_sigmoid = pytest.mark.parametrize('use_sigmoid', [False, True])

numbers = st.floats(-30, 30, width=32) | st.sampled_from([inf, -inf, nan, 1e30, -1e30])


@by_softmax_or_sigmoid
@examples
@given(
    row=st.lists(numbers, min_size=2, max_size=5),
    score_thr=st.sampled_from([1e-6, 0.01, 0.3, 0.9]) | st.floats(1e-9, 0.9),
)
@example(row=[0.0, 0.0], score_thr=0.49999999)
def test_a_prior_that_may_not_exceed_the_threshold_does_not(use_sigmoid, row, score_thr):
    logits = torch.tensor([row])
    scores = probabilities(logits, use_sigmoid)
    margin = logits.amax(1) if use_sigmoid else logits[:, :-1].amax(1) - logits[:, -1]
    if scores.isnan().any():  # it finds nothing, whatever it may exceed
        return
    assert may_exceed(margin, score_thr) or scores.max() <= score_thr


def test_few_may_exceed_the_threshold_where_background_is_sure():
    logits = torch.tensor([[0.0, 5.0], [0.0, 4.5], [nan, 0.0], [0.0, nan], [9.0, -inf]])
    may = may_exceed(logits[:, 0] - logits[:, 1], 0.01)  # exp(-4.6) is one hundredth
    assert may.tolist() == [False, True, False, False, True]


def spread_boxes(images, priors, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = 200 * torch.rand(images, priors, 2, generator=generator)
    size = 5 + 60 * torch.rand(images, priors, 2, generator=generator)
    boxes = torch.cat([corner, corner + size], dim=2)
    return lambda image, prior: boxes[image, prior]


def has_one_order(scores, score_thr):
    """Whether float32's rounding changes nothing of the order of an image's (B, C, P) scores."""
    scores = torch.nn.functional.pad(scores.flatten(1), (0, 1), value=score_thr)
    scores = scores.nan_to_num(nan=0).sort().values
    low, high = scores[:, :-1], scores[:, 1:]
    saturated = (low == high) & ((low == 0) | (low == 1))
    return bool((saturated | (high - low > 1e-5 * high)).all())


@by_softmax_or_sigmoid
@examples
@given(
    seed=st.integers(0, 10**6),
    background=st.sampled_from([-200.0, -2.0, 3.0, 6.0, 30.0, 200.0]),
    limit=st.sampled_from([-1, 3, 200]),
    nms_pre=st.sampled_from([-1, 5]),
    score_thr=st.sampled_from([0.0, 0.01, 0.4, 1.0]),
    looks=st.booleans(),
    with_nms=st.booleans(),
)
def test_detections_are_those_of_all_probabilities(
    use_sigmoid, seed, background, limit, nms_pre, score_thr, looks, with_nms
):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 5, 20, generator=generator)
    logits[:, -1] += background
    if use_sigmoid:
        logits = logits[:, :-1] - background
    logits[0, 1, ::7], logits[1, -1, 3], logits[2, 0, 5] = nan, inf, -inf
    assume(has_one_order(probabilities(logits.double(), use_sigmoid), score_thr))
    decode = spread_boxes(3, 20, seed)
    nms = dict(type='nms', iou_threshold=0.45)
    cfg = dict(score_thr=score_thr, nms_pre=nms_pre, nms=nms, max_per_img=limit)
    expected = detect(probabilities(logits, use_sigmoid), decode, cfg, with_nms)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'values_are_free', lambda tensor: looks)
        found = detect_from_logits(logits, use_sigmoid, decode, cfg, with_nms)
    for one, other in zip(found, expected, strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        assert torch.equal(one.bboxes, other.bboxes)
        torch.testing.assert_close(one.scores, other.scores)


def test_the_softmax_of_sure_background_is_not_computed(monkeypatch):
    logits = torch.zeros(1, 3, 100)
    logits[:, -1] = 10
    logits[0, 0, 42] = 12
    seen = []
    plain = probabilities

    def spy(logits, use_sigmoid):
        seen.append(tuple(logits.shape))
        return plain(logits, use_sigmoid)

    monkeypatch.setattr(module, 'probabilities', spy)
    cfg = dict(score_thr=0.01, nms=dict(type='nms', iou_threshold=0.45), max_per_img=200)
    (found,) = detect_from_logits(logits, False, spread_boxes(1, 100, 0), cfg)
    assert seen == [(1, 3)]
    assert found.labels.tolist() == [0]
    assert found.scores.item() == pytest.approx(0.8808, abs=1e-4)  # 1 / (1 + exp(-2) + exp(-12))


def test_a_prior_without_numbers_takes_no_place_on_the_short_list(monkeypatch):
    asked_for = []
    plain = module.best_priors

    def spy(best, score_thr, most):
        asked_for.append(most)
        return plain(best, score_thr, most)

    monkeypatch.setattr(module, 'best_priors', spy)
    logits = torch.randn(1, 3, 40, generator=torch.Generator().manual_seed(0))
    logits[0, 0, :10] = nan
    boxes = torch.arange(40.0)[:, None] * 20 + torch.tensor([0.0, 0, 10, 10])  # none near another
    cfg = dict(score_thr=0.01, nms=dict(type='nms', iou_threshold=0.45), max_per_img=3)
    (found,) = detect_from_logits(logits, False, lambda image, prior: boxes[prior], cfg)
    assert asked_for == [6]
    assert len(found) == 3
    assert found.bboxes[:, 0].min() >= 200
