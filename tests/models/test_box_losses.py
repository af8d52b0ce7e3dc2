"""Regression losses of the matched priors: formulas, faults, and priors that have no say."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.support import helpers as h
from tests.support.naive_losses import IOU_FORMULAS, box_loss

IOU_LOSSES = [*IOU_FORMULAS, 'EIoULoss', 'SIoULoss', 'BoundedIoULoss']
HEADS = {name: h.tiny_head(reg_decoded_bbox=True, loss_bbox=dict(type=name)) for name in IOU_LOSSES}
heads = pytest.mark.parametrize('head', HEADS.values(), ids=HEADS)
corner, side = st.floats(-10, 60), st.floats(2, 50)
box = st.tuples(corner, corner, side, side).map(lambda v: [v[0], v[1], v[0] + v[2], v[1] + v[3]])
delta = st.lists(st.floats(-8, 8), min_size=4, max_size=4)


@settings(deadline=None, max_examples=100)
@given(prior=box, delta=delta, truth=box, name=st.sampled_from(sorted(IOU_FORMULAS)))
def test_losses_of_decoded_boxes_are_their_formulas(prior, delta, truth, name):
    """Wherever the boxes lie, and whatever their shapes: values, and gradients to the deltas."""
    predicted = h.predicted_box(prior, delta)
    # Formulas have corners, where boxes have edges in common, and CIoU at an IoU of 0.5.
    edges = [(predicted[i], truth[j]) for i in range(4) for j in (i, (i + 2) % 4)]
    assume(all(abs(a - b) > 1e-3 for a, b in edges) and abs(h.iou(predicted, truth) - 0.5) > 1e-3)
    deltas = torch.tensor([delta], dtype=torch.float64, requires_grad=True)
    priors, bboxes = (torch.tensor([v], dtype=torch.float64) for v in (prior, truth))
    loss = HEADS[name].per_prior_box_loss(
        deltas[None], priors, bboxes[None], torch.tensor([[True]])
    )[0, 0]
    expected = box_loss(IOU_FORMULAS[name])(prior, deltas[0], truth)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    found, gradient = (
        torch.autograd.grad(value, deltas, allow_unused=True)[0] for value in (loss, expected)
    )
    torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-5)


@heads
def test_a_prediction_that_is_its_ground_truth_box_has_no_loss_and_a_finite_gradient(head):
    """MMDetection's CIoULoss of one is 0 / 0."""
    priors, deltas = torch.tensor(h.PRIORS), torch.zeros(1, 368, 4, requires_grad=True)
    losses = head.per_prior_box_loss(
        deltas, priors, priors[None], torch.ones(1, 368, dtype=torch.bool)
    )
    torch.testing.assert_close(losses, torch.zeros(1, 368), rtol=0, atol=2e-5)
    (gradient,) = torch.autograd.grad(losses.sum(), deltas)
    assert gradient.isfinite().all()


@heads
@pytest.mark.parametrize('value', [0.0, h.NAN, h.INF])
def test_priors_without_a_box_have_no_say_in_the_gradient_whatever_they_predict(head, value):
    """With deltas of 0 they predict themselves, where MMDetection's CIoULoss would be NaN."""
    targets = torch.tensor(h.PRIORS).repeat(3, 1, 1)
    matched = torch.zeros(3, 368, dtype=torch.bool)
    matched[:2, ::7] = True  # the third image has no boxes
    deltas = torch.where(matched.unsqueeze(-1), torch.rand(3, 368, 4), value).requires_grad_()
    losses = head.per_prior_box_loss(deltas, torch.tensor(h.PRIORS), targets, matched)
    assert losses.isfinite().all() and not losses[~matched].any()
    (gradient,) = torch.autograd.grad(losses.sum(), deltas)
    assert gradient.isfinite().all() and gradient[matched].any()
    assert not gradient[~matched].any()


@heads
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_losses_and_gradients_are_finite_on_ssd300_s_priors_whatever_is_predicted(head, dtype):
    """Boxes from the prior itself to far away; deltas from 0 to those of a network that fails."""
    generator = torch.Generator().manual_seed(0)
    priors = torch.cat(h.model_priors('SSD300 VOC'))[::7]
    sizes = (priors[:, 2:] - priors[:, :2]).repeat(1, 2)
    for shift in (0, 0.1, 3):
        noise = torch.randn(2, *priors.shape, generator=generator)
        bboxes = priors + shift * sizes * noise
        bboxes[..., :2] = torch.minimum(bboxes[..., :2], bboxes[..., 2:] - 1)
        for spread in (0, 1, 10, 1000):
            deltas = spread * torch.randn(noise.shape, generator=generator)
            deltas = deltas.to(dtype).float().requires_grad_()
            matched = torch.rand(2, len(priors), generator=generator) < 0.5
            with torch.autocast('cpu', dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
                losses = head.per_prior_box_loss(deltas, priors, bboxes, matched)
            (gradient,) = torch.autograd.grad(losses.sum(), deltas)
            assert losses.isfinite().all() and gradient.isfinite().all(), (shift, spread)
