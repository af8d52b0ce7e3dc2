"""Batch normalisation folded into convolutions changes what a detector costs, not what it finds."""

import pytest
import torch
from torch import nn

from ssd_plugin.inference.folding import fold_batch_norm
from tests.support.config_rows import NAMES
from tests.support.exported import normalised_detector, read_config

# Those whose backbone is VGG-16 have nothing to fold.
NORMALISED = [name for name in NAMES if read_config(name).model.backbone.type != 'SSDVGG']


def count(model, kind):
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.mark.parametrize('name', NORMALISED)
@torch.no_grad()
def test_maps_of_every_config_stay_the_same(name):
    detector, size = normalised_detector(name)
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
