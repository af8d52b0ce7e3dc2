"""The training step as accelerators and compiled graphs compute it, run on the CPU.

There no step looks at values, and no shape depends on them. The losses and gradients are those of
the CPU's own way, which the other tests compare with naive loops.
"""

import pytest
import torch
from helpers import (
    TINY,
    clear_cut_boxes,
    image_metas,
    instances,
    naive_priors,
    tiny_head,
    to_levels,
)
from torch._subclasses.fake_tensor import FakeTensorMode

from ssd_plugin import assigner as assigner_module
from ssd_plugin import head as head_module
from ssd_plugin import losses as losses_module
from ssd_plugin import matching as matching_module

PRIORS = [prior for level in naive_priors(TINY) for prior in level]
FOCAL = dict(type='HardNegativeMiningLoss', loss=dict(type='FocalLoss'))
HEADS = {
    'as in the paper': {},
    'images without objects teach': dict(
        loss_cls=dict(type='HardNegativeMiningLoss', min_negatives=5)
    ),
    'sigmoid scores': dict(loss_cls=FOCAL),
    'no mining': dict(loss_cls=dict(type='FocalLoss')),
    'boxes in pixels': dict(reg_decoded_bbox=True, loss_bbox=dict(type='GIoULoss')),
    'ignored objects': dict(
        train_cfg=dict(assigner=dict(type='BatchMaxIoUAssigner', ignore_iof_thr=0.5))
    ),
}
heads = pytest.mark.parametrize('options', HEADS.values(), ids=HEADS)


@pytest.fixture
def look_away(monkeypatch):
    """Have the head, the mining and the matching go as they do on an accelerator."""

    def switch():
        for module in (head_module, losses_module, assigner_module, matching_module):
            monkeypatch.setattr(module, 'values_are_free', lambda tensor: False)

    return switch


def batch(head, counts=(3, 0, 6), memory=torch.contiguous_format):
    generator = torch.Generator().manual_seed(0)
    maps = [
        [
            level.contiguous(memory_format=memory).requires_grad_()
            for level in to_levels(torch.randn(len(counts), 368, channels, generator=generator))
        ]
        for channels in (head.cls_out_channels, 4)
    ]
    boxes = [clear_cut_boxes(n, 7 + n, PRIORS) for n in counts]
    gt = [instances(b, [i % 3 for i in range(len(b))]) for b in boxes]
    ignored = [instances([[20, 20, 60, 60]])] * len(counts)
    return (*maps, gt, image_metas(len(counts)), ignored)


def losses_and_gradients(loss, inputs):
    losses = loss(*inputs)
    maps = [*inputs[0], *inputs[1]]
    return [*losses.values(), *torch.autograd.grad(sum(losses.values()), maps)]


@heads
@pytest.mark.parametrize('memory', [torch.contiguous_format, torch.channels_last])
def test_losses_and_gradients_are_the_same_without_looking_at_values(look_away, options, memory):
    head = tiny_head(**options)
    inputs = batch(head, memory=memory)
    expected = losses_and_gradients(head.loss_by_feat, inputs)
    assert expected[0] > 0 and expected[1] > 0
    look_away()
    found = losses_and_gradients(head.loss_by_feat, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@heads
def test_one_compiled_graph_takes_the_loss(options):
    head = tiny_head(**options)
    inputs = batch(head)
    expected = losses_and_gradients(head.loss_by_feat, inputs)
    torch.compiler.reset()
    compiled = torch.compile(head.loss_by_feat, fullgraph=True, backend='aot_eager')
    found = losses_and_gradients(compiled, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@heads
def test_no_step_needs_a_value(look_away, options):
    """Fake tensors have shapes and no values: whatever would synchronise a device raises."""
    head = tiny_head(**options)
    inputs = batch(head)
    look_away()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        scores, preds = ([mode.from_tensor(level) for level in maps] for maps in inputs[:2])
        gt, ignored = (
            [type(i)(**{k: mode.from_tensor(v) for k, v in i.items()}) for i in images]
            for images in (inputs[2], inputs[4])
        )
        losses = head.loss_by_feat(scores, preds, gt, inputs[3], ignored)
        sum(losses.values()).backward()
    assert [loss.shape for loss in losses.values()] == [(), ()]
