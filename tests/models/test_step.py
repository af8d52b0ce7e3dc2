"""A tiny detector learns its images, and what makes its step faster changes nothing of that."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast

from ssd_plugin.engine.amp import CPUAmpOptimWrapper
from tests.support import tiny_detector as tiny


@pytest.mark.parametrize(
    ('num_classes', 'wrapper'), [(1, OptimWrapper), (3, OptimWrapper), (3, CPUAmpOptimWrapper)]
)
def test_a_detector_learns_to_find_what_it_is_shown(num_classes, wrapper):
    """In all four combinations of mixed precision, or none, in training and in evaluation."""
    model = tiny.tiny_detector(num_classes)
    if wrapper is CPUAmpOptimWrapper:
        model = tiny.channels_last(model)
    losses = tiny.train(model, wrapper, 80)
    assert losses[-1] < 0.1 * losses[0]
    tiny.assert_finds_its_boxes(model)
    with torch.no_grad(), autocast(enabled=True):  # as MMEngine's loops do with fp16=True
        tiny.assert_finds_its_boxes(tiny.channels_last(model))


def test_channels_last_changes_the_layout_of_maps_and_not_their_values():
    plain, turned = tiny.tiny_detector(), tiny.channels_last(tiny.tiny_detector())
    for level in turned(torch.rand(2, 3, 64, 64), None, mode='tensor')[0]:
        assert level.is_contiguous(memory_format=torch.channels_last)
    found, expected = (tiny.train(model, OptimWrapper, 4) for model in (turned, plain))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert turned.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.skipif(
    torch.__version__ < (2, 2), reason='PyTorch 2.1 compiles no check of a list of images'
)
def test_a_compiled_step_learns_as_the_plain_one_does():
    """``compile`` in a config has MMEngine do this, with a backend that needs a compiler."""
    plain, compiled = tiny.tiny_detector(), tiny.tiny_detector()
    torch.compiler.reset()
    compiled.train_step = torch.compile(compiled.train_step, backend='aot_eager')
    found, expected = (tiny.train(model, OptimWrapper, 3) for model in (compiled, plain))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
