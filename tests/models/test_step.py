"""What makes the training step faster: it learns the same with it as without."""

import numpy as np
import pytest
import torch
from mmdet.evaluation import eval_map
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import autocast

from ssd_plugin.engine.amp import CPUAmpOptimWrapper
from tests.models.test_head import MIXED, data, tiny_detector

LABELS = [[0, 1], [], [2]]


class ARunner:
    """As much of a runner as the hook sees."""

    def __init__(self, model):
        self.model = model


def channels_last(model):
    HOOKS.build(dict(type='ChannelsLastHook')).before_run(ARunner(model))
    return model


def initialised():
    """The same model whenever it is called."""
    model = tiny_detector()
    torch.manual_seed(1)
    model.init_weights()
    return model


def trained(model, wrapper, steps):
    optimizer = wrapper(torch.optim.Adam(model.parameters(), lr=0.01))
    return [model.train_step(data(MIXED, LABELS), optimizer)['loss'] for _ in range(steps)]


@torch.no_grad()
def mean_ap(model):
    """MMDetection's mAP on the three images."""
    detections, annotations = [], []
    for sample, boxes, labels in zip(model.eval().test_step(data(MIXED, LABELS)), MIXED, LABELS):
        found = sample.pred_instances
        rows = torch.cat([found.bboxes, found.scores[:, None]], 1).float()
        detections.append([rows[found.labels == c].numpy() for c in range(3)])
        truth = dict(bboxes=np.float32(boxes).reshape(-1, 4), labels=np.int64(labels))
        annotations.append(truth)
    return eval_map(detections, annotations, logger='silent')[0]


def test_channels_last_changes_where_numbers_lie_and_not_what_they_are():
    plain, turned = initialised(), channels_last(initialised())
    images = torch.rand(2, 3, 64, 64)
    for level in turned(images, None, mode='tensor')[0]:
        assert level.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        trained(turned, OptimWrapper, 4), trained(plain, OptimWrapper, 4), rtol=1e-3, atol=1e-4
    )
    assert turned.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize('wrapper', [OptimWrapper, CPUAmpOptimWrapper])
def test_map_agrees_with_and_without_mixed_precision(wrapper):
    """In all four combinations of how it was trained and how it is evaluated."""
    model = initialised()
    if wrapper is CPUAmpOptimWrapper:
        model = channels_last(model)
    losses = trained(model, wrapper, 80)
    assert losses[-1] < 0.1 * losses[0]
    assert mean_ap(model) == pytest.approx(1, abs=0.01)
    with autocast(enabled=True):  # as MMEngine's loops do with fp16=True
        assert mean_ap(channels_last(model)) == pytest.approx(1, abs=0.01)


@pytest.mark.skipif(
    torch.__version__ < (2, 2), reason='PyTorch 2.1 compiles no check of a list of images'
)
def test_a_compiled_step_learns_as_the_plain_one_does():
    """``compile`` in a config has MMEngine do this, with a backend that needs a compiler."""
    plain, compiled = initialised(), initialised()
    torch.compiler.reset()
    compiled.train_step = torch.compile(compiled.train_step, backend='aot_eager')
    torch.testing.assert_close(
        trained(compiled, OptimWrapper, 4), trained(plain, OptimWrapper, 4), rtol=1e-3, atol=1e-4
    )
