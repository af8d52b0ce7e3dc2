"""On a GPU: the numbers of the CPU, and no step of the loss that waits for the device."""

from contextlib import contextmanager

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import autocast

from ssd_plugin.engine.amp import enable_amp
from ssd_plugin.engine.launch import build_runner
from tests.support import tiny_detector as tiny
from tests.support.commands import ROOT, run_warm
from tests.support.helpers import image_metas, random_batch, tiny_head, to_levels
from tests.support.tiny_training import BY_ITERATION, write_training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device'),
]
heads = pytest.mark.parametrize('options', tiny.HEADS.values(), ids=tiny.HEADS)


@contextmanager
def nothing_waits():
    """Whatever synchronises the host with the GPU raises."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')


def on_gpu(inputs):
    """The inputs of a step on the GPU, in the same memory format."""
    scores, deltas, truth, metas, ignored = inputs
    maps = ([m.detach().cuda().requires_grad_() for m in levels] for levels in (scores, deltas))
    return (*maps, [i.to('cuda') for i in truth], metas, [i.to('cuda') for i in ignored])


@heads
@pytest.mark.parametrize('memory', [torch.contiguous_format, torch.channels_last])
def test_losses_and_gradients_are_those_of_the_cpu(options, memory):
    head = tiny_head(**options)
    inputs = tiny.step_inputs(head, memory)
    expected = tiny.losses_and_gradients(head.loss_by_feat, inputs)
    found = tiny.losses_and_gradients(head.cuda().loss_by_feat, on_gpu(inputs))
    assert all(value.is_cuda for value in found)
    torch.testing.assert_close([f.cpu() for f in found], expected, rtol=1e-4, atol=1e-6)


# MMDetection's overlaps of boxes, which are in its IoU losses, copy a number to the device.
@pytest.mark.parametrize('name', sorted(tiny.HEADS.keys() - {'boxes in pixels, and their quality'}))
def test_no_step_of_the_loss_waits_for_the_gpu(name):
    head = tiny_head(**tiny.HEADS[name]).cuda()
    inputs = tiny.step_inputs(head)
    # Annotations are on the host, as SSDDataPreprocessor leaves them.
    inputs = (*on_gpu(inputs)[:2], *inputs[2:])
    expected = tiny.losses_and_gradients(head.loss_by_feat, inputs)  # makes the priors
    with nothing_waits():
        found = tiny.losses_and_gradients(head.loss_by_feat, inputs)
        with pytest.raises(RuntimeError, match='synchroniz'):
            inputs[0][0].sum().item()
    torch.testing.assert_close(found, expected)


def test_no_step_of_training_waits_for_the_gpu(tmp_path, monkeypatch):
    """From the loader's batch to the hooks that log: with --amp, as the recipes train."""
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(write_training(tmp_path, BY_ITERATION))
    cfg.merge_from_dict(Config.fromfile(ROOT / 'configs/_base_/default_runtime.py').to_dict())
    cfg.model.data_preprocessor.update(
        type='SSDDataPreprocessor', bgr_to_rgb=True, non_blocking=True
    )
    cfg.train_cfg.update(max_iters=12, val_interval=100)
    cfg.work_dir = str(tmp_path / 'out')
    # After the fifth, the end of an epoch, the log is written.
    cfg.custom_hooks += [dict(type='WaitingHook', first=6, last=12)]
    enable_amp(cfg)
    try:
        build_runner(cfg).train()
    finally:
        torch.cuda.set_sync_debug_mode('default')


@HOOKS.register_module()
class WaitingHook(Hook):
    """Has whatever waits for the GPU fail, from one iteration on and until another."""

    priority = 'HIGHEST'

    def __init__(self, first, last):
        self.first, self.last = first, last

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        fails = self.first <= runner.iter + 1 < self.last
        torch.cuda.set_sync_debug_mode('error' if fails else 'default')


def test_detections_are_those_of_the_cpu():
    batch = random_batch((0, 0, 0))
    head, metas = tiny_head(), image_metas(3)
    maps = [to_levels(flat.detach()) for flat in batch[:2]]
    expected = head.predict_by_feat(*maps, metas)
    found = head.cuda().predict_by_feat(*([m.cuda() for m in part] for part in maps), metas)
    for one, other in zip(found, expected, strict=True):
        assert len(other) == 200
        assert one.labels.tolist() == other.labels.tolist()
        torch.testing.assert_close(one.scores.cpu(), other.scores, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(one.bboxes.cpu(), other.bboxes, rtol=1e-4, atol=1e-3)


def test_a_step_learns_what_it_learns_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)  # It has three decimals.
    expected = tiny.train(tiny.tiny_detector(), OptimWrapper, 4)
    found = tiny.train(tiny.tiny_detector().cuda(), OptimWrapper, 4)
    torch.testing.assert_close([f.cpu() for f in found], expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_mixed_precision_finds_what_it_was_taught(dtype):
    model = tiny.channels_last(tiny.tiny_detector().cuda())
    losses = tiny.train(model, AmpOptimWrapper, 80, dtype=dtype)
    assert losses[-1] < 0.1 * losses[0]
    with torch.no_grad(), autocast(enabled=True):
        tiny.assert_finds_its_boxes(model)


def test_the_loss_scale_goes_on_where_it_was(tmp_path):
    """Five steps in one command and five in the next, with a scale that doubles every fourth."""
    config = write_training(tmp_path)
    out = tmp_path / 'out'
    options = (
        'default_hooks.checkpoint.interval=5', 'val_cfg.fp16=True',
        'optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.loss_scale.init_scale=1024.0',
        'optim_wrapper.loss_scale.growth_interval=4',
    )  # fmt: skip

    def train_until(epochs, *flags):
        said = run_warm(
            ROOT / 'tools/train.py', config, '--work-dir', out, *flags, '--cfg-options', *options,
            f'train_cfg.max_epochs={epochs}', cwd=tmp_path,
        )  # fmt: skip
        checkpoint = torch.load(out / f'iter_{5 * epochs}.pth', weights_only=False)
        return said, checkpoint['optimizer']['loss_scaler']

    _, scaler = train_until(1)
    assert (scaler['scale'], scaler['_growth_tracker']) == (2048, 1)
    said, scaler = train_until(2, '--resume')
    assert (scaler['scale'], scaler['_growth_tracker']) == (4096, 2)
    assert 'mAP' in said
