"""Batch normalisation folded into convolutions changes what a detector costs, not what it finds."""

import pytest
import torch
from mmdet.models.necks.ssd_neck import L2Norm
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn

from ssd_plugin.datasets.config import input_size
from ssd_plugin.inference.folding import fold_batch_norm
from tests.support.config_rows import NAMES
from tests.support.exported import read_config

# Those whose backbone is VGG-16 have nothing to fold.
NORMALISED = [name for name in NAMES if read_config(name).model.backbone.type != 'SSDVGG']


def count(model, kind):
    return sum(isinstance(module, kind) for module in model.modules())


def build(name):
    """A config's detector with random statistics."""
    cfg = read_config(name)
    cfg.model.backbone.update(
        {key: None for key in ('weights', 'pretrained') if key in cfg.model.backbone}
    )
    init_default_scope('mmdet')
    torch.manual_seed(0)
    detector = MODELS.build(cfg.model).eval()
    for module in detector.modules():
        if isinstance(module, L2Norm):  # whose weight is not set before init_weights
            nn.init.constant_(module.weight, 20)
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor, std=0.2)
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.8, 1.2)
    return detector, input_size(cfg)


@pytest.mark.parametrize('name', NORMALISED)
@torch.no_grad()
def test_maps_of_every_config_stay_the_same(name):
    detector, size = build(name)
    images = torch.randn(1, 3, *size[::-1])
    expected = detector(images, mode='tensor')
    fold_batch_norm(detector)
    left = 8 if 'fpnlite' in name else 0  # after convolutions of two steps
    assert count(detector, nn.BatchNorm2d) == left
    for maps, folded in zip(expected, detector(images, mode='tensor'), strict=True):
        for level, ours in zip(maps, folded, strict=True):
            atol = 1e-5 * max(1, level.abs().max().item())
            torch.testing.assert_close(ours, level, rtol=0, atol=atol)


class Shared(nn.Module):
    """One convolution before two layers of statistics, and a norm that no convolution precedes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(self.first[0], nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))

    def forward(self, images):
        return self.first(images) + self.second(images)


def test_what_modules_share_is_folded_for_each():
    torch.manual_seed(0)
    model = Shared()
    for _ in range(5):
        model(torch.randn(8, 3, 16, 16) * 2 + 1)
    model.eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(images)
        fold_batch_norm(model)
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    assert count(model, nn.BatchNorm2d) == 1
