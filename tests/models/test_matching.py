"""Overlaps, and the two computations of greedy matching: against the naive loop."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures.bbox import bbox_overlaps

from ssd_plugin.models import matching
from ssd_plugin.models.matching import (
    match_by_offers,
    match_by_rounds,
    match_greedily,
    pairwise_iou,
)
from tests.support.helpers import iou, model_priors

examples = settings(deadline=None, max_examples=150)
# Few values, so that ties are everywhere; 0 is no overlap at all.
grades = st.sampled_from([0.0, 0.0, 0.1, 0.25, 0.5, 0.75, 1.0])


@st.composite
def overlap_tables(draw):
    batch, num_gts, num_priors = (draw(st.integers(1, n)) for n in (3, 7, 9))
    size = batch * num_gts * num_priors
    values = draw(st.lists(grades, min_size=size, max_size=size))
    return torch.tensor(values).reshape(batch, num_gts, num_priors)


def naive_greedy(table):
    """The sentence of the paper's code: the best pair of all, then the best of the rest."""
    own_gt = [0] * table.shape[1]
    pairs = [(-float(v), g, p) for g, row in enumerate(table) for p, v in enumerate(row) if v > 0]
    boxes_left = set(range(len(table)))
    for _, g, p in sorted(pairs):
        if g in boxes_left and own_gt[p] == 0:
            own_gt[p] = g + 1
            boxes_left.remove(g)
    return own_gt


@pytest.mark.parametrize('method', [match_by_rounds, match_by_offers, match_greedily])
@examples
@given(overlaps=overlap_tables())
def test_the_highest_pair_goes_first_and_ties_go_to_the_lower_box_and_prior(method, overlaps):
    assert method(overlaps).tolist() == [naive_greedy(table) for table in overlaps]


@pytest.mark.parametrize('method', [match_by_rounds, match_by_offers])
def test_a_chain_in_which_each_box_is_displaced_by_the_one_before_takes_every_round(method):
    """Box k prefers the prior of box k - 1, who takes it: the longest wait that there is."""
    size = 12
    table = torch.zeros(size, size)
    for g in range(size):
        table[g, g] = 0.9 - 0.05 * g
        table[g, g - 1] = table[g, g] + 0.02 if g else 0
    assert method(table[None])[0].tolist() == naive_greedy(table) == list(range(1, size + 1))


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40))
def test_both_computations_agree_on_real_priors(seed, count):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, count, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 5 + 40 * torch.rand(2, count, 2, generator=generator)], 2)
    overlaps = pairwise_iou(boxes, torch.cat(model_priors('SSD300 VOC')))
    before = overlaps.clone()
    assert torch.equal(match_by_rounds(overlaps), match_by_offers(overlaps))
    assert torch.equal(overlaps, before), 'the overlaps are still needed afterwards'


def test_a_compiled_graph_gets_the_rounds_of_fixed_shape(monkeypatch):
    monkeypatch.setattr(matching, 'values_are_free', lambda tensor: False)
    monkeypatch.setattr(matching, 'match_by_rounds', lambda overlaps: pytest.fail('looks'))
    overlaps = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0))
    assert match_greedily(overlaps).tolist() == [naive_greedy(table) for table in overlaps]


boxes = st.builds(
    lambda x, y, w, h: [x, y, x + w, y + h],
    *(st.integers(-5, 20) for _ in range(2)),
    *(st.integers(0, 12) for _ in range(2)),
)


@examples
@given(
    images=st.lists(st.lists(boxes, min_size=3, max_size=3), min_size=1, max_size=3), data=st.data()
)
def test_overlaps_are_intersection_over_union(images, data):
    priors = data.draw(st.lists(boxes, min_size=1, max_size=4))
    result = pairwise_iou(torch.tensor(images).float(), torch.tensor(priors).float())
    expected = [[[float(iou(g, p)) for p in priors] for g in image] for image in images]
    torch.testing.assert_close(result, torch.tensor(expected), rtol=1e-6, atol=0)


def test_overlaps_are_mmdetection_s_to_the_last_bit():
    """So that a threshold falls on the same side of them."""
    priors = torch.cat(model_priors('SSD512 COCO'))
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(2, 20, 2, generator=generator) * 400
    boxes = torch.cat([corner, corner + 200 * torch.rand(2, 20, 2, generator=generator)], 2)
    theirs = bbox_overlaps(boxes, priors.expand(2, -1, -1))
    assert torch.equal(pairwise_iou(boxes, priors), theirs)
