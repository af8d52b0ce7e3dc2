"""The training step reads no values, so that nothing waits for a GPU and it compiles whole."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from torch._subclasses.fake_tensor import FakeTensorMode

from ssd_plugin.models.targets import get_targets
from tests.support.helpers import (
    TINY,
    clear_cut_boxes,
    image_metas,
    instances,
    naive_priors,
    tiny_head,
    to_levels,
)

PRIORS = [prior for level in naive_priors(TINY) for prior in level]
SIGMOID = dict(type='CrossEntropyLoss', use_sigmoid=True)
SMOOTH = dict(type='torch.nn.CrossEntropyLoss', label_smoothing=0.1)
FOCAL = dict(type='HardNegativeMiningLoss', loss=dict(type='FocalLoss'))
HEADS = {
    'as in the paper': {},
    'images without objects teach': dict(
        loss_cls=dict(type='HardNegativeMiningLoss', min_negatives=5)
    ),
    'sigmoid scores': dict(loss_cls=FOCAL),
    'sigmoid cross entropy': dict(loss_cls=dict(type='HardNegativeMiningLoss', loss=SIGMOID)),
    'smooth labels': dict(loss_cls=dict(type='HardNegativeMiningLoss', loss=SMOOTH)),
    'no mining': dict(loss_cls=dict(type='FocalLoss')),
    'boxes in pixels, and their quality': dict(
        reg_decoded_bbox=True,
        loss_bbox=dict(type='GIoULoss'),
        loss_cls=dict(type='HardNegativeMiningLoss', loss=dict(type='VarifocalLoss')),
    ),
    'ignored objects': dict(
        train_cfg=dict(assigner=dict(type='BatchMaxIoUAssigner', ignore_iof_thr=0.5))
    ),
}
heads = pytest.mark.parametrize('options', HEADS.values(), ids=HEADS)


def batch(head, counts=(3, 0, 6)):
    generator = torch.Generator().manual_seed(0)
    maps = [
        [
            level.detach().requires_grad_()
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


@pytest.mark.skipif(
    torch.__version__ < (2, 2),
    reason='PyTorch 2.1 compiles no look-up of a tuple in a dict',
)
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
def test_no_step_needs_a_value(options):
    """Fake tensors have shapes and no values: whatever would synchronise a device raises."""
    head = tiny_head(**options)
    inputs = batch(head)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        scores, preds = ([mode.from_tensor(level) for level in maps] for maps in inputs[:2])
        gt, ignored = (
            [type(i)(**{k: mode.from_tensor(v) for k, v in i.items()}) for i in images]
            for images in (inputs[2], inputs[4])
        )
        losses = head.loss_by_feat(scores, preds, gt, inputs[3], ignored)
        sum(losses.values()).backward()
    assert [loss.shape for loss in losses.values()] == [(), ()]


@pytest.mark.parametrize('loss', ['IoULoss', 'GIoULoss', 'DIoULoss', 'CIoULoss', 'SIoULoss'])
def test_a_prior_that_predicts_itself_has_no_say_in_the_gradient(loss):
    """Offsets of 0, where MMDetection's CIoULoss of an unmatched prior would be NaN."""
    head = tiny_head(reg_decoded_bbox=True, loss_bbox=dict(type=loss))
    scores, deltas, gt, metas, _ = batch(head)
    deltas = [torch.zeros_like(level, requires_grad=True) for level in deltas]
    found = losses_and_gradients(head.loss_by_feat, (scores, deltas, gt, metas))
    assert all(values.isfinite().all() for values in found)
    priors = head.get_priors(scores)
    targets = get_targets(priors, head.assigner, head.num_classes, gt, metas)
    matched = to_levels(targets.matched.unsqueeze(-1).expand(-1, -1, 4))
    assert any(gradient.any() for gradient in found[-3:])
    assert not any(g[~m].any() for g, m in zip(found[-3:], matched, strict=True))


@pytest.mark.skipif(
    torch.__version__ < (2, 2), reason='PyTorch 2.1 has no fake tensors on a GPU that is not there'
)
@pytest.mark.parametrize('mined', [False, True])
def test_focal_loss_on_a_gpu_needs_no_compiled_operation(monkeypatch, mined):
    """From MMDetection's own heads it calls one of mmcv's there, which mmcv-lite lacks."""

    def missing(*args, **options):
        raise NotImplementedError

    module = 'mmdet.models.losses.focal_loss'
    monkeypatch.setattr(f'{module}.sigmoid_focal_loss', missing)
    head = tiny_head(loss_cls=FOCAL if mined else FOCAL['loss'])
    with FakeTensorMode(allow_non_fake_inputs=True):
        gpu = dict(device='cuda')
        rows = torch.empty(3, 368, head.cls_out_channels, **gpu)
        labels, weights = (torch.ones(3, 368, dtype=t, **gpu) for t in (torch.long, torch.float))
        seen_by_mmdetection = SimpleNamespace(is_available=lambda: True)
        monkeypatch.setattr(f'{module}.torch', SimpleNamespace(cuda=seen_by_mmdetection))
        with pytest.raises(NotImplementedError):
            MODELS.build(FOCAL['loss'])(torch.empty(5, 3, **gpu), labels[0, :5])
        loss = head.cls_loss(rows, labels, weights, torch.ones((), **gpu))
        assert loss.is_cuda and loss.shape == ()
