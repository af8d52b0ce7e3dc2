"""The confidence loss of each prior: the numbers of Caffe's `test_bbox_util.cpp`.

Caffe has background first, or nowhere (-1); here it is last with softmax and nowhere with sigmoids.
"""

from math import exp, log

import pytest
import torch

from ssd_plugin.models.losses import HardNegativeMiningLoss
from tests.support.helpers import tiny_head

# Two images, two priors, two scores: 0, -0.1, -0.2, -0.3 in the first, 0.4 to 0.7 in the second.
SCORES = torch.tensor([[[-0.0, -0.1], [-0.2, -0.3]], [[0.4, 0.5], [0.6, 0.7]]])


def losses_of(scores, labels, **loss):
    """The loss of each prior, all of which are kept."""
    mining = HardNegativeMiningLoss(dict(type='CrossEntropyLoss', **loss), min_negatives=2)
    return mining(scores, torch.tensor(labels), reduction_override='none')


def assert_near(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


def on(x):
    """The loss of a sigmoid that should be 1."""
    return -log(exp(x) / (1 + exp(x)))


def off(x):
    """The loss of a sigmoid that should be 0."""
    return -log(1 / (1 + exp(x)))


@pytest.mark.parametrize(
    ('matched', 'own'),
    [(2, off(0.4) + off(0.5)), (1, off(0.4) + on(0.5))],
    ids=['TestComputeConfLoss', 'TestComputeConfLossMatch'],
)
def test_a_sigmoid_without_background_learns_0_for_every_class_but_the_matched_one(matched, own):
    """The logistic loss with background -1; the first prior of the second image is matched."""
    found = losses_of(SCORES, [[2, 2], [matched, 2]], use_sigmoid=True)
    first = [off(-0.0) + off(-0.1), off(-0.2) + off(-0.3)]
    assert_near(found, [first, [own, off(0.6) + off(0.7)]])


@pytest.mark.parametrize(
    ('matched', 'own'),
    [(0, on(0.4) + off(0.5)), (1, off(0.4) + on(0.5))],
    ids=['TestComputeConfLoss', 'TestComputeConfLossMatch'],
)
def test_a_sigmoid_learns_1_for_the_class_of_each_prior(matched, own):
    """The logistic loss with background 0, which is a class as any other for a sigmoid."""
    found = losses_of(SCORES, [[0, 0], [matched, 0]], use_sigmoid=True)
    first = [on(-0.0) + off(-0.1), on(-0.2) + off(-0.3)]
    assert_near(found, [first, [own, on(0.6) + off(0.7)]])


HIGHER, LOWER = -log(1 / (1 + exp(-0.1))), -log(exp(-0.1) / (1 + exp(-0.1)))


@pytest.mark.parametrize(
    ('matched', 'own'),
    [(1, LOWER), (0, HIGHER)],
    ids=['TestComputeConfLoss', 'TestComputeConfLossMatch'],
)
def test_softmax_compares_unmatched_priors_with_background(matched, own):
    """The softmax loss; background is last here, so each pair of scores changes places."""
    found = losses_of(SCORES.flip(-1), [[1, 1], [matched, 1]])
    assert_near(found, [[HIGHER, HIGHER], [own, LOWER]])


def test_probabilities_are_the_softmax_of_the_scores():
    """`TestSoftMaxGPU`."""
    scores = torch.tensor([[[0.1, 0.9], [0.9, 0.1]], [[0.3, 0.7], [0.7, 0.3]]])
    head, (far, near) = tiny_head(num_classes=1), (exp(-0.8), exp(-0.4))
    first = [[far / (far + 1), 1 / (far + 1)], [near / (near + 1), 1 / (near + 1)]]
    second = [[1 / (far + 1), far / (far + 1)], [1 / (near + 1), near / (near + 1)]]
    assert_near(head.probabilities(scores).squeeze(-1), first)
    assert_near(head.probabilities(scores.flip(-1)).squeeze(-1), second)
