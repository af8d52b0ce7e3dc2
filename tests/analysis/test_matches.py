"""`show.py matches`: the matches and the negatives are those of the method."""

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hub import get_config

from ssd_plugin.analysis.matches import build_model, match
from ssd_plugin.datasets.samples import packed
from ssd_plugin.visualization.matches import describe, draw_matches
from tests.support.commands import ROOT
from tests.support.helpers import clear_cut_boxes, instances, naive_match, to_flat
from tests.support.naive_losses import naive_mining

CLASSES = ('circle', 'square', 'triangle', 'star', 'cross')


def build(**head):
    """The demo's model, with changes to its head."""
    cfg = Config.fromfile(ROOT / 'configs/demo_shapes.py', import_custom_modules=False)
    cfg.model.bbox_head.update(head)
    torch.manual_seed(0)
    return build_model(cfg, None)


@pytest.fixture(scope='module')
def model():
    return build()


def make_item(boxes, labels):
    sample = DetDataSample(metainfo=dict(img_path='a/b.jpg', img_shape=(160, 160)))
    sample.gt_instances = instances(boxes, labels)
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, 160, 160), generator=generator, dtype=torch.uint8)
    return dict(inputs=image, data_samples=sample)


@torch.no_grad()
def test_matches_and_negatives_are_those_of_the_method(model):
    sizes = [(20, 20), (10, 10), (5, 5), (3, 3)]
    priors = torch.cat(model.bbox_head.prior_generator.grid_priors(sizes, device='cpu')).tolist()
    boxes = clear_cut_boxes(3, 0, priors, size=160, smallest=25, largest=90)
    item = make_item(boxes, [2, 0, 1])
    found = match(model, item)
    gt_inds, _ = naive_match(priors, boxes)
    assert found.gt_inds.tolist() == gt_inds
    assert found.priors == pytest.approx(np.array(priors))
    assert np.bincount(found.levels).tolist() == [1600, 400, 100, 36]

    batch = model.data_preprocessor({key: [value] for key, value in item.items()})
    scores = to_flat(model.bbox_head(model.extract_feat(batch['inputs']))[0], 6)[0]
    losses = -scores.log_softmax(-1)[:, -1]
    positive = [g > 0 for g in gt_inds]
    mined = naive_mining(losses, positive, [not p for p in positive])
    assert set(np.flatnonzero(found.mined)) == set(mined)


def test_a_loss_that_does_not_mine_has_no_hard_negatives():
    found = match(build(loss_cls=dict(type='FocalLoss')), make_item([[20, 20, 60, 70]], [0]))
    assert found.mined is None and (found.gt_inds > 0).any()


def test_a_sample_without_boxes(model):
    item = make_item([], [])
    found = match(model, item)
    assert not found.mined.any() and not (found.gt_inds > 0).any()
    figure = draw_matches(packed(item), found, CLASSES, (8, 16, 32, 64), 'nothing')
    assert len(figure.axes) == 2


def test_the_image_tells_the_counts(model):
    boxes = [[10 + 14 * i, 20, 40 + 14 * i, 60] for i in range(9)]
    item = make_item(boxes, [0] * 9)
    sample, found = packed(item), match(model, item)
    matched = int((found.gt_inds > 0).sum())
    assert describe(sample, found) == (
        f'9 objects, {matched} of 2136 priors matched to them, {3 * matched} hard negatives mined'
    )
    figure = draw_matches(sample, found, CLASSES, (8, 16, 32, 64), 'title')
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[1].startswith(f'{3 * matched} hard negatives, by level ')
    assert len(titles) == 2 + 8  # of nine boxes, eight by themselves
    assert all('best IoU' in title for title in titles[2:])

    without = draw_matches(sample, found._replace(mined=None), CLASSES, (8, 16, 32, 64), 'title')
    assert without.axes[1].get_title().startswith(f'{matched} matched priors')


def test_other_heads_are_refused():
    cfg = get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    cfg.model.backbone.init_cfg = None
    assert MODELS.build(cfg.model)  # the config itself is sound
    with pytest.raises(ValueError, match='SSDMultiBoxHead'):
        build_model(cfg, None)
