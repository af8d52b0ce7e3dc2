"""Mixed precision on the CPU: bfloat16 in the forward pass, float32 in all that is kept."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel
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


def amp_config(**changes):
    return Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), **changes)))


def test_the_cpu_gets_our_wrapper_and_no_settings_of_the_other(monkeypatch):
    monkeypatch.setattr(amp, 'get_device', lambda: 'cpu')
    cfg = amp_config(type='AmpOptimWrapper', loss_scale=512.0, dtype='float16', clip_grad=None)
    amp.enable_amp(cfg)
    expected = dict(type='CPUAmpOptimWrapper', optimizer=dict(type='SGD', lr=0.1), clip_grad=None)
    assert cfg.optim_wrapper.to_dict() == expected


def on_a_gpu(monkeypatch, capability=(8, 0)):
    monkeypatch.setattr(amp, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: capability)


def built_amp_wrapper(cfg, monkeypatch):
    """MMEngine's wrapper from a config, where it thinks that there is a GPU."""
    monkeypatch.setattr(
        'mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available', lambda: True
    )
    options = cfg.optim_wrapper.to_dict()
    kind = options['optimizer'].pop('type')
    options['optimizer'] = getattr(torch.optim, kind)([torch.zeros(1)], **options['optimizer'])
    return OPTIM_WRAPPERS.build(options)


@pytest.mark.filterwarnings('ignore::FutureWarning')
def test_a_gpu_with_bfloat16_needs_no_loss_scale(monkeypatch):
    on_a_gpu(monkeypatch)
    cfg = amp_config(type='OptimWrapper', loss_scale=dict(init_scale=512.0))
    amp.enable_amp(cfg)
    wrapper = built_amp_wrapper(cfg, monkeypatch)
    assert type(wrapper).__name__ == 'AmpOptimWrapper'
    assert wrapper.cast_dtype == torch.bfloat16
    assert not wrapper.loss_scaler.is_enabled()


@pytest.mark.filterwarnings('ignore::FutureWarning', 'ignore:torch.cuda.amp.GradScaler is enabled')
@pytest.mark.parametrize(
    ('capability', 'said', 'dtype'),
    [((7, 5), {}, None), ((8, 0), dict(dtype='float16'), torch.float16)],
)
def test_float16_has_a_dynamic_loss_scale_and_no_fused_optimizer(
    monkeypatch, capability, said, dtype
):
    """Where a loss scaler skips its first step, PyTorch's fused SGD has garbage for momentum."""
    on_a_gpu(monkeypatch, capability)
    cfg = amp_config(type='OptimWrapper', **said)
    amp.enable_amp(cfg)
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    assert 'fused' not in cfg.optim_wrapper.optimizer
    assert built_amp_wrapper(cfg, monkeypatch).cast_dtype == dtype


@pytest.mark.parametrize(
    ('optimizer', 'fused'),
    [
        (dict(type='SGD'), True if torch.__version__ >= (2, 3) else None),
        (dict(type='AdamW'), True),
        (dict(type='RMSprop'), None),
        (dict(type='AdamW', fused=False), False),  # what the config says stays
    ],
)
def test_on_a_gpu_the_optimizer_is_fused_where_it_can_be(monkeypatch, optimizer, fused):
    on_a_gpu(monkeypatch)
    cfg = amp_config(type='OptimWrapper')
    cfg.optim_wrapper.optimizer = dict(optimizer, lr=0.1)
    amp.enable_amp(cfg)
    assert cfg.optim_wrapper.optimizer.get('fused') is fused


@pytest.mark.parametrize(('instructions', 'warns'), [('AVX2', True), ('AVX512', False)])
def test_a_cpu_that_is_slow_in_bfloat16_is_told(monkeypatch, recwarn, instructions, warns):
    monkeypatch.setattr(amp, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: instructions)
    amp.enable_amp(amp_config(type='OptimWrapper'))
    assert any('without --amp' in str(warning.message) for warning in recwarn) is warns


def evaluated_config(head):
    cfg = amp_config(type='OptimWrapper')
    cfg.model = dict(bbox_head=dict(type=head))
    cfg.val_cfg = dict(type='ValLoop')
    return cfg


def test_its_evaluations_are_in_mixed_precision_and_its_model_has_channels_last():
    cfg = evaluated_config('SSDMultiBoxHead')
    cfg.custom_hooks = [dict(type='DataFaultHook')]
    amp.enable_amp(cfg)
    amp.enable_amp(cfg)
    assert cfg.val_cfg.fp16 is True
    hooks = [dict(type='DataFaultHook'), dict(type='ChannelsLastHook')]
    assert [hook.to_dict() for hook in cfg.custom_hooks] == hooks


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_other_heads_are_evaluated_in_float32_on_a_cpu(monkeypatch, recwarn, device):
    on_a_gpu(monkeypatch)
    monkeypatch.setattr(amp, 'get_device', lambda: device)
    cfg = evaluated_config('RetinaHead')
    amp.enable_amp(cfg)
    assert cfg.val_cfg.get('fp16', False) is (device == 'cuda')
    said = any('stays in float32' in str(warning.message) for warning in recwarn)
    assert said is (device == 'cpu')


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


def test_training_without_evaluation_stays_without():
    cfg = amp_config(type='OptimWrapper')
    cfg.val_cfg = None
    amp.enable_amp(cfg)
    assert cfg.val_cfg is None
