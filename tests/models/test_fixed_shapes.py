"""The training step reads no values, so that nothing waits for a GPU and it compiles whole."""

import pytest
import torch
from mmdet.registry import MODELS
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.support.helpers import mined, tiny_head
from tests.support.tiny_detector import HEADS, losses_and_gradients, step_inputs

heads = pytest.mark.parametrize('options', HEADS.values(), ids=HEADS)


@pytest.mark.skipif(
    torch.__version__ < (2, 2), reason='PyTorch 2.1 compiles no look-up of a tuple in a dict'
)
@heads
def test_one_compiled_graph_takes_the_loss(options):
    head = tiny_head(**options)
    inputs = step_inputs(head)
    expected = losses_and_gradients(head.loss_by_feat, inputs)
    torch.compiler.reset()
    compiled = torch.compile(head.loss_by_feat, fullgraph=True, backend='aot_eager')
    found = losses_and_gradients(compiled, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@heads
def test_no_step_needs_a_value(options):
    """Fake tensors have shapes and no values: whatever would synchronise a device raises."""
    head = tiny_head(**options)
    scores, deltas, truth, metas, ignored = step_inputs(head)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        maps = ([mode.from_tensor(level) for level in levels] for levels in (scores, deltas))
        truth, ignored = (
            [type(i)(**{k: mode.from_tensor(v) for k, v in i.items()}) for i in images]
            for images in (truth, ignored)
        )
        losses = head.loss_by_feat(*maps, truth, metas, ignored)
        sum(losses.values()).backward()
    assert all(loss.shape == () for loss in losses.values())


@pytest.mark.skipif(
    torch.__version__ < (2, 2), reason='PyTorch 2.1 has no fake tensors on a GPU that is not there'
)
@pytest.mark.parametrize('loss_cls', [dict(type='FocalLoss'), mined(type='FocalLoss')])
def test_focal_loss_on_a_gpu_needs_no_compiled_operation(monkeypatch, loss_cls):
    """From MMDetection's own heads it calls one of mmcv's there, which mmcv-lite lacks."""
    head = tiny_head(loss_cls=loss_cls)
    with FakeTensorMode(allow_non_fake_inputs=True):
        gpu = dict(device='cuda')
        rows = torch.empty(3, 368, head.cls_out_channels, **gpu)
        labels, weights = (torch.ones(3, 368, dtype=t, **gpu) for t in (torch.long, torch.float))
        factor = torch.ones((), **gpu)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        with pytest.raises(NotImplementedError, match='sigmoid_focal_loss'):
            MODELS.build(dict(type='FocalLoss'))(rows[0], labels[0])
        loss = head.batch_cls_loss(rows, labels, weights, factor)
        assert loss.is_cuda and loss.shape == ()
