"""Mixed precision on the CPU: bfloat16 in the forward pass, float32 in all that is kept."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from ssd_plugin.engine import CPUAmpOptimWrapper, amp


class TwoLayers(BaseModel):
    """A model that remembers the type its layers computed in."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))

    def forward(self, inputs, mode='loss'):
        outputs = self.layers(inputs)
        self.computed_in = outputs.dtype
        return dict(loss=(outputs.float() ** 2).mean())


def wrapper_of(model, type='CPUAmpOptimWrapper', **kwargs):
    # Two groups of parameters: the wrappers then keep a setting of their own in checkpoints.
    groups = [dict(params=layer.parameters()) for layer in model.layers]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    return OPTIM_WRAPPERS.build(dict(type=type, optimizer=optimizer, **kwargs))


def trained(steps, wrapper_type='CPUAmpOptimWrapper', **kwargs):
    torch.manual_seed(0)
    model = TwoLayers()
    wrapper = wrapper_of(model, wrapper_type, **kwargs)
    inputs = torch.randn(steps, 16, 4)
    for batch in inputs:
        model.train_step(dict(inputs=batch), wrapper)
    return model, wrapper


def tensors(state):
    return [value for one in state['state'].values() for value in one.values()]


def test_forward_is_bfloat16_and_everything_kept_is_float32():
    model, wrapper = trained(2)
    assert model.computed_in == torch.bfloat16
    kept = [*model.parameters(), *tensors(wrapper.state_dict())]
    assert len(kept) == 8
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    model(torch.zeros(1, 4))
    assert model.computed_in == torch.float32, 'autocast leaks out of the training step'


def test_it_learns_as_float32_does():
    model, _ = trained(5)
    reference, _ = trained(5, 'OptimWrapper')
    assert reference.computed_in == torch.float32
    for ours, theirs in zip(model.parameters(), reference.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.02)
        assert not torch.equal(ours, theirs)


def test_gradients_too_small_for_float16_arrive_without_a_loss_scale():
    layer = nn.Linear(1, 1, bias=False)
    wrapper = CPUAmpOptimWrapper(torch.optim.SGD(layer.parameters(), lr=1.0))
    with wrapper.optim_context(layer):
        loss = layer(torch.ones(1, 1)).sum() * 1e-20
    wrapper.backward(loss)
    assert layer.weight.grad.item() == pytest.approx(1e-20, rel=0.01)


def test_gradients_accumulate():
    model, wrapper = trained(1, accumulative_counts=2)
    assert tensors(wrapper.state_dict()) == []
    model.train_step(dict(inputs=torch.randn(16, 4)), wrapper)
    assert len(tensors(wrapper.state_dict())) == 4


@pytest.mark.parametrize('scaled', [False, True])
@pytest.mark.parametrize(
    ('source', 'target'),
    [
        ('OptimWrapper', 'CPUAmpOptimWrapper'),
        ('CPUAmpOptimWrapper', 'CPUAmpOptimWrapper'),
        ('CPUAmpOptimWrapper', 'OptimWrapper'),
    ],
)
def test_checkpoints_pass_between_wrappers(source, target, scaled):
    """``scaled``: as AmpOptimWrapper writes them, which can't be built here without a GPU."""
    _, wrapper = trained(2, source)
    checkpoint = copy.deepcopy(wrapper.state_dict())
    if scaled and target == 'CPUAmpOptimWrapper':
        checkpoint['loss_scaler'] = dict(scale=1024.0, growth_factor=2.0)
    resumed = wrapper_of(TwoLayers(), target)
    resumed.load_state_dict(copy.deepcopy(checkpoint))
    for ours, theirs in zip(tensors(resumed.state_dict()), tensors(checkpoint), strict=True):
        assert torch.equal(ours, theirs)
    assert resumed.state_dict().keys() == wrapper.state_dict().keys()
    assert resumed.base_param_settings.keys() == wrapper.base_param_settings.keys()


def enabled(monkeypatch, device='cuda', capability=(8, 0), optimizer='SGD', **changes):
    """A config with mixed precision turned on for a device."""
    monkeypatch.setattr(amp, 'get_device', lambda: device)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: capability)
    if isinstance(optimizer, str):
        optimizer = dict(type=optimizer)
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(optimizer, lr=0.1))))
    cfg.merge_from_dict(changes)
    amp.enable_amp(cfg)
    return cfg


def test_the_cpu_gets_our_wrapper_and_no_settings_of_the_other(monkeypatch):
    theirs = dict(type='AmpOptimWrapper', loss_scale=512.0, dtype='float16', clip_grad=None)
    cfg = enabled(monkeypatch, 'cpu', optim_wrapper=theirs)
    expected = dict(type='CPUAmpOptimWrapper', optimizer=dict(type='SGD', lr=0.1), clip_grad=None)
    assert cfg.optim_wrapper.to_dict() == expected
    assert cfg.get('val_cfg') is None, 'training without evaluation stays without'


@pytest.mark.filterwarnings('ignore::FutureWarning', 'ignore:torch.cuda.amp.GradScaler is enabled')
@pytest.mark.parametrize(
    ('capability', 'said', 'dtype', 'scales'),
    [
        ((8, 0), dict(loss_scale=dict(init_scale=512.0)), torch.bfloat16, False),
        ((7, 5), {}, None, True),
        ((8, 0), dict(dtype='float16'), torch.float16, True),
    ],
)
def test_a_gpu_scales_its_loss_in_float16_alone_and_then_fuses_no_optimizer(
    monkeypatch, capability, said, dtype, scales
):
    """Where a loss scaler skips its first step, PyTorch's fused SGD has garbage for momentum."""
    cfg = enabled(monkeypatch, capability=capability, optim_wrapper=said)
    assert (cfg.optim_wrapper.loss_scale == 'dynamic') is scales
    assert not (scales and 'fused' in cfg.optim_wrapper.optimizer)
    # MMEngine builds its wrapper only where it thinks that there is a GPU.
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    options = cfg.optim_wrapper.to_dict()
    options['optimizer'].pop('type')
    options['optimizer'] = torch.optim.SGD([torch.zeros(1)], **options['optimizer'])
    wrapper = OPTIM_WRAPPERS.build(options)
    assert type(wrapper).__name__ == 'AmpOptimWrapper'
    assert wrapper.cast_dtype == dtype
    assert scales or not wrapper.loss_scaler.is_enabled()


@pytest.mark.parametrize(
    ('optimizer', 'fused'),
    [
        ('SGD', True if torch.__version__ >= (2, 3) else None),
        ('AdamW', True),
        ('RMSprop', None),
        (dict(type='AdamW', fused=False), False),  # what the config says stays
    ],
)
def test_on_a_gpu_the_optimizer_is_fused_where_it_can_be(monkeypatch, optimizer, fused):
    cfg = enabled(monkeypatch, optimizer=optimizer)
    assert cfg.optim_wrapper.optimizer.get('fused') is fused


@pytest.mark.parametrize(('instructions', 'warns'), [('AVX2', True), ('AVX512', False)])
def test_a_cpu_that_is_slow_in_bfloat16_is_told(monkeypatch, recwarn, instructions, warns):
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: instructions)
    enabled(monkeypatch, 'cpu')
    assert any('without --amp' in str(warning.message) for warning in recwarn) is warns


@pytest.mark.parametrize(
    ('device', 'head', 'coarse'),
    [
        ('cpu', 'SSDMultiBoxHead', False),
        ('cuda', 'SSDMultiBoxHead', False),
        ('cpu', 'PISASSDMultiBoxHead', False),
        ('cpu', 'RetinaHead', True),
        ('cuda', 'RetinaHead', False),
    ],
)
def test_evaluations_are_in_mixed_precision_but_of_other_heads_on_a_cpu(
    monkeypatch, recwarn, device, head, coarse
):
    hooks = [dict(type='DataFaultHook')]
    changes = dict(model=dict(bbox_head=dict(type=head)), val_cfg=dict(type='ValLoop'))
    cfg = enabled(monkeypatch, device, custom_hooks=hooks, **changes)
    amp.enable_amp(cfg)  # a second time
    assert cfg.val_cfg.get('fp16', False) is not coarse
    assert any('stays in float32' in str(warning.message) for warning in recwarn) is coarse
    hooks.append(dict(type='ChannelsLastHook'))
    assert [hook.to_dict() for hook in cfg.custom_hooks] == hooks


@pytest.mark.parametrize(
    ('config', 'dtype'),
    [('ssd300_voc', torch.float32), ('retinanet_r50_hnm_voc', torch.bfloat16)],
)
def test_the_boxes_that_heads_give_in_mixed_precision(config, dtype):
    """The reason for that: MMDetection's metrics hand boxes to NumPy, which has no bfloat16."""
    cfg = Config.fromfile(f'configs/{config}.py').model
    head = MODELS.build(dict(cfg.bbox_head, test_cfg=cfg.test_cfg))
    sides = [side for side, _ in head.prior_generator.strides]
    channels = cfg.bbox_head.in_channels
    if isinstance(channels, int):
        channels = [channels] * len(sides)
    maps = [torch.rand(1, c, -(-300 // s), -(-300 // s)) for c, s in zip(channels, sides)]
    sample = DetDataSample(metainfo=dict(img_shape=(300, 300), scale_factor=(1.0, 1.0)))
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        found = head.predict(maps, [sample], rescale=False)[0]
    assert len(found.bboxes)
    assert found.bboxes.dtype == dtype
