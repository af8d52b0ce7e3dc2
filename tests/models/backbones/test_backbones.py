"""`TorchvisionBackbone` is the torchvision model that it names, up to the maps asked for."""

import copy
import re
import sys

import pytest
import torch
import torchvision
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.model import Sequential
from mmengine.model.utils import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import StochasticDepth

from ssd_plugin.errors import CheckpointError
from ssd_plugin.models.backbones.__main__ import main
from ssd_plugin.models.backbones.torchvision_backbone import preprocessing
from tests.support.commands import ROOT
from tests.support.helpers import to_flat

# Two modules of a model each.
MODULES = {
    'resnet18': ('layer2', 'layer3'),
    'mobilenet_v3_small': ('features.4.block.0', 'features.9.block.0'),
    'shufflenet_v2_x0_5': ('stage2', 'stage3'),
    'squeezenet1_1': ('features.4', 'features.7'),
    'convnext_tiny': ('features.3', 'features.5'),
    'swin_t': ('features.3', 'features.5'),
}
CHANNELS_LAST = ('swin_t',)
# Dropout that is a function of the mode, not a layer with one.
BUILDER_ARGUMENTS = {'swin_t': dict(attention_dropout=0.3, dropout=0.3)}


def build(name='resnet18', **arguments):
    if 'nodes' not in arguments:
        arguments.setdefault('strides', (8, 16))
    return MODELS.build(dict(type='TorchvisionBackbone', name=name, **arguments))


def same_weights(backbone, model):
    """Give a backbone a whole model's weights, by name: each of its own must be there."""
    backbone.load_state_dict({key: model.state_dict()[key] for key in backbone.state_dict()})
    return backbone


def assert_same_maps(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def randomise_norms(model):
    """Batch normalisation that a mistake in its place or its epsilon would show in."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.001, 1.5)
    return model


def outputs_of(model, modules, images):
    """What a model's modules give, by forward hooks."""
    found = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda _, args, output, name=name: found.update({name: output.detach().clone()})
        )
        for name in modules
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in modules]


def images(*sides, batch=2):
    return torch.randn(batch, 3, *sides, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('name', MODULES)
def test_maps_are_those_of_the_whole_model(name):
    modules, arguments = MODULES[name], BUILDER_ARGUMENTS.get(name, {})
    torch.manual_seed(0)
    model = randomise_norms(get_model(name, **arguments))
    backbone = same_weights(build(name, nodes=modules, model_args=arguments), model)
    x = images(160, 96)
    for mode in (False, True, False):  # after training, statistics have moved
        model.train(mode), backbone.train(mode)
        torch.manual_seed(1)  # of dropout and stochastic depth
        expected = outputs_of(model, modules, x)
        torch.manual_seed(1)
        maps = backbone(x)
        if name in CHANNELS_LAST:
            expected = [reference.permute(0, 3, 1, 2) for reference in expected]
        assert_same_maps(maps, expected)
        for found, *levels in zip(maps, backbone.out_channels, backbone.out_strides, strict=True):
            assert found.shape[:2] == (2, levels[0])
            # SqueezeNet's first layer has no padding, and loses a part of a cell.
            for cells, side in zip(found.shape[2:], x.shape[2:]):
                assert abs(cells - side / levels[1]) <= 1


@pytest.mark.parametrize('name', ['resnet18', 'swin_t'])
def test_parameters_are_those_that_the_maps_need(name):
    names = {key for key, _ in get_model(name).named_parameters()}
    backbone = build(name, strides=(8, 16))
    own = {key for key, _ in backbone.named_parameters()}
    after = ('layer4.', 'fc.', 'features.6.', 'features.7.', 'norm.', 'head.')
    assert own == {key for key in names if not key.startswith(after)}
    sum(output.mean() for output in backbone(images(64, 64))).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ('name', 'strides', 'nodes', 'channels'),
    [
        # The bottleneck's first layers are at the stride before: they are not the block.
        ('resnet50', (4, 8, 16, 32), ('layer1', 'layer2', 'layer3', 'layer4'), None),
        # The maps of SSDLite.
        ('mobilenet_v3_large', (16, 32), ('features.13.block.0', 'features.16'), (672, 960)),
        ('shufflenet_v2_x0_5', (32, 8), ('conv5', 'stage2'), (1024, 48)),
        # Its last map is pooled to 6 x 6, which is no map at a stride.
        ('alexnet', (16, 32), ('features.11', 'features'), (256, 256)),
    ],
)
def test_a_stride_names_the_last_map_there(name, strides, nodes, channels):
    by_stride, by_name = build(name, strides=strides), build(name, nodes=nodes)
    assert by_stride.out_strides == by_name.out_strides == strides
    assert by_stride.out_channels == (channels or (256, 512, 1024, 2048))
    by_stride.load_state_dict(by_name.state_dict())
    x = images(128, 128, batch=1)
    assert_same_maps(by_stride.eval()(x), by_name.eval()(x))


def test_strides_are_right_where_convolutions_do_not_pad():
    nodes = ('Mixed_5d', 'Mixed_6e', 'Mixed_7c')
    backbone = build('inception_v3', nodes=nodes, model_args=dict(init_weights=False))
    assert backbone.out_strides == (8, 16, 32)
    assert backbone.out_channels == (288, 768, 2048)


def test_builder_s_arguments_and_norm_reach_the_model():
    settings = dict(norm_cfg=dict(type='BN', eps=0.01, momentum=0.2))
    settings.update(nodes=['features.16'], model_args=dict(reduced_tail=True))
    backbone = build('mobilenet_v3_large', **settings)
    assert backbone.out_channels == (480,)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.01, 0.2)}


def test_a_copy_and_converted_layers_are_what_runs():
    backbone = randomise_norms(build(nodes=('relu', 'layer2'))).eval()
    x = images(64, 64)
    expected = backbone(x)
    # As an averaged model, and MMEngine's `sync_bn`, make them.
    copied = copy.deepcopy(backbone)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(backbone))
    for twin in (copied, revert_sync_batchnorm(converted).eval()):  # MMEngine 0.10.4 trains then
        assert_same_maps(twin(x), expected)
        nn.init.zeros_(twin.bn1.weight)
        nn.init.zeros_(twin.bn1.bias)
        assert not twin(x)[0].any()
    assert_same_maps(backbone(x), expected)


def frozen(module):
    return {name for name, p in module.named_parameters() if not p.requires_grad}


def norms_in_evaluation(module):
    modules = module.named_modules()
    return {name for name, m in modules if isinstance(m, nn.BatchNorm2d) and not m.training}


@pytest.mark.parametrize(
    ('stages', 'norm_eval'),
    [(-1, True), (-1, False), (0, False), (1, True), (2, False), (4, False)],
)
def test_stages_are_those_of_mmdetection_s_resnet(stages, norm_eval):
    settings = dict(frozen_stages=stages, norm_eval=norm_eval)
    reference = MODELS.build(dict(type='ResNet', depth=18, out_indices=(2, 3), **settings))
    backbone = build(strides=(16, 32), **settings)
    for module in (reference, backbone):
        module.eval()
        module.train()
    assert frozen(backbone) == frozen(reference)
    assert norms_in_evaluation(backbone) == norms_in_evaluation(reference)
    assert len(frozen(backbone)) == {-1: 0, 0: 3}.get(stages, 15 * stages)


def test_frozen_layers_do_not_learn_nor_count():
    backbone = build(frozen_stages=1)
    before = copy.deepcopy(backbone.state_dict())
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    sum(output.mean() for output in backbone(images(64, 64))).backward()
    optimizer.step()
    first = ('conv1.', 'bn1.', 'layer1.')
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(first), name
    assert all(p.grad is None for n, p in backbone.named_parameters() if n.startswith(first))


def test_frozen_swin_stages_keep_all_their_blocks():
    backbone = build('swin_t', frozen_stages=1).train()
    assert backbone.out_channels == (192, 384)
    first = ('features.0.', 'features.1.')
    assert frozen(backbone) == {n for n, _ in backbone.named_parameters() if n.startswith(first)}
    assert 'features.1.0.attn.relative_position_bias_table' in frozen(backbone)
    drops = [(n, m) for n, m in backbone.named_modules() if isinstance(m, StochasticDepth)]
    assert {m.training for n, m in drops if n.startswith(first)} == {False}
    assert {m.training for n, m in drops if not n.startswith(first)} == {True}


@pytest.fixture
def model():
    torch.manual_seed(3)
    return randomise_norms(get_model('resnet18'))


def saved(state, folder):
    torch.save(state, folder / 'weights.pth')
    return str(folder / 'weights.pth')


@pytest.mark.parametrize('weights', ['file', 'DEFAULT', 'IMAGENET1K_V1'])
def test_init_weights_loads_a_file_or_torchvision_s_weights_once(
    model, weights, tmp_path, monkeypatch
):
    state = model.state_dict()
    if weights == 'file':  # as from before PyTorch 0.4.1
        old = {key: value for key, value in state.items() if 'num_batches_tracked' not in key}
        weights = saved(old, tmp_path)
    # A file in torch.hub's folder is taken for the one that was to be downloaded.
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    name = get_model_weights('resnet18')['IMAGENET1K_V1'].url.split('/')[-1]
    (tmp_path / 'hub/checkpoints').mkdir(parents=True)
    torch.save(state, tmp_path / 'hub/checkpoints' / name)

    backbone = build(weights=weights)
    assert not torch.equal(backbone.conv1.weight, model.conv1.weight)
    detector = Sequential(backbone)
    detector.init_weights()
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, state[key]), key
    nn.init.zeros_(backbone.conv1.weight)
    detector.init_weights()
    backbone.init_weights()
    assert not backbone.conv1.weight.any()


def test_inception_scales_images_as_its_weights_ask_for():
    arguments = dict(nodes=['conv1'], model_args=dict(init_weights=False))
    plain = get_model('googlenet', init_weights=False, aux_logits=False, transform_input=True)
    x = images(64, 64)
    (expected,) = outputs_of(plain.eval(), ['conv1'], x)
    trained = same_weights(build('googlenet', weights='DEFAULT', **arguments), plain).eval()
    assert torch.equal(trained(x)[0], expected)
    random = same_weights(build('googlenet', **arguments), plain).eval()
    assert not torch.allclose(random(x)[0], expected)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(stem=torch.zeros(1)), "unexpected 'stem'"),
        ({'bn1.bias': None}, "'bn1.bias' is missing"),
        ({'bn1.bias': torch.zeros(3)}, r"'bn1.bias' is \(3,\), should be \(64,\)"),
        ([1, 2], 'it holds a list'),
    ],
)
def test_a_file_that_does_not_fit_names_its_first_wrong_key(model, change, message, tmp_path):
    state = change
    if isinstance(change, dict):
        state = {k: v for k, v in {**model.state_dict(), **change}.items() if v is not None}
    backbone = build(weights=saved(state, tmp_path))
    with pytest.raises(ValueError, match=f'weights.pth is not the weights of resnet18: {message}'):
        backbone.init_weights()


def test_a_file_s_classifier_need_not_fit(model, tmp_path):
    state = {**model.state_dict(), 'fc.weight': torch.zeros(7, 512), 'fc.bias': torch.zeros(7)}
    backbone = build(weights=saved(state, tmp_path))
    backbone.init_weights()
    assert torch.equal(backbone.conv1.weight, model.conv1.weight)


def test_a_file_that_would_run_code_or_is_missing_is_refused_when_it_is_needed(model, tmp_path):
    backbone = build(weights=saved(model, tmp_path))
    with pytest.raises(CheckpointError, match=r'weights\.pth is refused: to read it would run'):
        backbone.init_weights()
    backbone = build(weights='nowhere/ResNet18_Weights.DEFAULT')
    with pytest.raises(CheckpointError, match='nowhere/ResNet18.* are IMAGENET1K_V1, DEFAULT'):
        backbone.init_weights()


def test_weights_that_cannot_be_downloaded_are_told_with_the_address(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')  # where nobody listens
    with pytest.raises(CheckpointError) as caught:
        build(weights='DEFAULT').init_weights()
    said = str(caught.value)
    assert "can't download the weights of resnet18 from https://download.pytorch.org/" in said
    assert "name the file in place of 'DEFAULT'" in said and '\n' not in said


@pytest.mark.parametrize('inherited', [None, 'DEFAULT'])
def test_a_config_names_the_file_as_everywhere_in_mmdetection(inherited, model, tmp_path):
    path = saved(dict(state_dict=model.state_dict(), meta={}), tmp_path)
    backbone = build(weights=inherited, init_cfg=dict(type='Pretrained', checkpoint=path))
    backbone.init_weights()
    assert torch.equal(backbone.conv1.weight, model.conv1.weight)
    (tmp_path / 'text.pth').write_text('no weights')
    path = str(tmp_path / 'text.pth')
    with pytest.raises(CheckpointError, match='text.pth is not the weights of resnet18') as caught:
        build(init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()
    assert '\n' not in str(caught.value)


def test_preprocessing_is_the_weights():
    backbone = build()
    imagenet = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
    assert backbone.preprocessing == imagenet
    from_minus_one = preprocessing(get_model_weights('efficientnet_v2_l').DEFAULT)
    assert from_minus_one == dict(mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True)
    x = torch.randint(256, (1, 3, 224, 224), dtype=torch.uint8)
    transform = get_model_weights('resnet18').DEFAULT.transforms(resize_size=224)
    mean, std = (torch.tensor(imagenet[key]).view(3, 1, 1) for key in ('mean', 'std'))
    torch.testing.assert_close((x - mean) / std, transform(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(name='resnet19'), "no classification model 'resnet19', closest: resnet1"),
        (dict(name='ssd300'), "model 'ssd300', there are: alexnet, .*vgg16.*wide_resnet50_2"),
        (dict(nodes=['layer5']), "no node 'layer5', closest: layer4"),
        (dict(nodes=['qqq']), 'there are: conv1, relu, maxpool, layer1.0, layer1, .*, layer4$'),
        (dict(nodes=['flatten']), "node 'flatten' is no feature map"),
        (dict(nodes=['avgpool']), "node 'avgpool' is no feature map"),
        (dict(nodes=['layer2.1.bn1']), "'layer2.1.bn1' is overwritten in place"),
        (dict(strides=(8, 12)), r'no feature map at stride 12; there are \[2, 4, 8, 16, 32\]'),
        (dict(strides=(8,), nodes=['layer2']), 'either nodes or strides'),
        (dict(strides=None), 'either nodes or strides'),
        (dict(weights='IMAGENET1K_V9'), "no weights 'IMAGENET1K_V9', closest: IMAGENET1K_V1"),
        (dict(weights='best'), "no weights 'best', there are: IMAGENET1K_V1, DEFAULT"),
        (dict(weights='DEFAULT', init_cfg=dict(type='Normal')), 'weights or init_cfg, not both'),
        (dict(frozen_stages=5), r'frozen_stages=5 is up to stride 64, .* \[2, 4, 8, 16, 32\]'),
        (dict(name='vit_b_16'), 'must take images of any size'),
    ],
)
def test_a_mistake_is_told_with_what_there_is(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


@pytest.mark.parametrize(
    'arguments', [dict(name='vgg11', norm_cfg=dict(type='BN')), dict(model_args=dict(depth=3))]
)
def test_an_argument_that_a_builder_does_not_take_is_told(arguments):
    with pytest.raises(TypeError, match=r'(vgg11|resnet18) .*unexpected keyword'):
        build(**arguments)


def test_command_prints_the_maps_and_a_config_that_fits_them(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, 'argv', ['backbones', 'mobilenet_v3_small'])
    main()
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert ['16', 'features.9.block.0', '288'] in rows
    assert rows.index(['8', 'features.4.block.0', '96']) < rows.index(['16', 'features.4', '40'])
    text = printed.split('# Over configs/ssd300_voc.py:')[1]
    model = detector(f"_base_ = '{ROOT}/configs/ssd300_voc.py'\n{text}", tmp_path)
    assert num_priors(model) == 8732
    mean = model.data_preprocessor.mean.flatten().tolist()
    assert mean == pytest.approx([123.675, 116.28, 103.53])

    monkeypatch.setattr(sys, 'argv', ['backbones', 'resnet19'])
    with pytest.raises(SystemExit):
        main()
    assert "no classification model 'resnet19'" in capsys.readouterr().err


def test_command_prints_what_the_page_has(monkeypatch, capsys):
    page = (ROOT / 'docs/backbones.md').read_text()
    snippet = next(t for t in re.findall(r'```python\n(.*?)```', page, re.DOTALL) if 'regnet' in t)
    monkeypatch.setattr(sys, 'argv', ['backbones', 'regnet_y_400mf'])
    main()
    printed, written = {}, {}
    exec(capsys.readouterr().out.split('# Over configs/ssd300_voc.py:')[1], printed)
    exec(snippet, written)
    assert printed['model'] == written['model']


@pytest.mark.parametrize('name', ['vgg16', 'swin_t'])
def test_command_keeps_the_neck_s_normalisation_for_maps_without_one(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['backbones', name])
    main()
    assert 'l2_norm_scale' not in capsys.readouterr().out


def test_sync_bn_is_refused_with_what_does_it():
    with pytest.raises(ValueError, match="write norm_cfg=.*, and sync_bn='torch'"):
        build(norm_cfg=dict(type='SyncBN'))
    layers = convert_sync_batchnorm(build()).modules()
    assert any(isinstance(layer, nn.SyncBatchNorm) for layer in layers)


def detector(text, folder):
    """The detector of a config."""
    path = folder / 'config.py'
    path.write_text(text)
    return MODELS.build(Config.fromfile(path).model).eval()


def num_priors(model):
    with torch.no_grad():
        scores, _ = model(torch.zeros(1, 3, 300, 300), mode='tensor')
    return len(model.bbox_head.get_priors(scores))


def test_documented_examples_work(tmp_path):
    text = (ROOT / 'docs/backbones.md').read_text()
    whole, timm, program, part, _ = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    model = detector(whole.replace("'configs/", f"'{ROOT}/configs/"), tmp_path)
    assert num_priors(model) == 8732
    names = {}
    exec(program, names)
    assert names['backbone'].out_channels == (512, 1024)
    exec(part, names)
    assert MODELS.build(names['backbone']).out_channels == (672, 480)
    pytest.importorskip('timm')
    exec(timm, names)
    assert MODELS.build(names['backbone']).out_channels == (240, 672, 1152)


def test_documented_retinanet_trains_on_a_timm_model(tmp_path):
    pytest.importorskip('timm')
    text = (ROOT / 'docs/backbones.md').read_text().split('## In other detectors')[1]
    path = tmp_path / 'config.py'
    path.write_text(text.split('```python\n')[1].split('```')[0])
    init_default_scope('mmdet')
    cfg = Config.fromfile(path).model
    assert cfg.backbone.pop('pretrained')
    model = MODELS.build(cfg).train()
    inputs = demo_mm_inputs(2, [[3, 128, 128]] * 2, num_items=[2, 2], num_classes=80)
    batch = model.data_preprocessor(inputs, True)
    losses = model.loss(batch['inputs'], batch['data_samples'])
    sum(map(sum, losses.values())).backward()
    learning = {name for name, p in model.backbone.named_parameters() if p.grad is not None}
    frozen = ('model.conv_stem.', 'model.bn1.', 'model.blocks.0.', 'model.blocks.1.')
    names = {name for name, _ in model.backbone.named_parameters()}
    assert learning == {name for name in names if not name.startswith(frozen)}


def test_command_prints_timm_s_maps_and_a_config_that_fits_them(monkeypatch, capsys, tmp_path):
    pytest.importorskip('timm')
    monkeypatch.setattr(sys, 'argv', ['backbones', '--timm', 'tf_efficientnet_lite0'])
    main()
    printed = capsys.readouterr().out
    assert ['16', '3', 'blocks.4', '112'] in [line.split() for line in printed.splitlines()]
    text = printed.split('# Over configs/ssd300_voc.py:')[1]
    model = detector(f"_base_ = '{ROOT}/configs/ssd300_voc.py'\n{text}", tmp_path)
    assert num_priors(model) == 8732
    assert set(model.data_preprocessor.std.flatten().tolist()) == {127.5}

    monkeypatch.setattr(sys, 'argv', ['backbones', '--timm', 'swin_tiny_patch4_window7_224'])
    main()
    text = capsys.readouterr().out.split('# Over configs/ssd300_voc.py:')[1]
    model = detector(f"_base_ = '{ROOT}/configs/ssd300_voc.py'\n{text}", tmp_path)
    assert num_priors(model) == 8732

    for name, message in {
        'resnet81': 'closest: resnet18',
        'vit_tiny_patch16_224': 'stride 8',
    }.items():
        monkeypatch.setattr(sys, 'argv', ['backbones', '--timm', name])
        with pytest.raises(SystemExit):
            main()
        assert message in capsys.readouterr().err


def trained_classifiers():
    """The models of the configs whose backbone starts from a classifier's weights, by name."""
    models = {p.stem: Config.fromfile(p).model for p in (ROOT / 'configs').glob('*.py')}
    kinds = ('TorchvisionBackbone', 'TimmBackbone')
    starts = ('weights', 'pretrained', 'init_cfg')
    return {
        name: model
        for name, model in sorted(models.items())
        if model.backbone.type in kinds
        and any(map(model.backbone.get, starts))
        and model.backbone.get('init_cfg', {}).get('type', 'Pretrained') == 'Pretrained'
    }


@pytest.mark.parametrize('model', [pytest.param(m, id=n) for n, m in trained_classifiers().items()])
def test_config_normalises_images_as_its_weights_ask_for(model):
    expected = MODELS.build(model.backbone).preprocessing
    found = {key: model.data_preprocessor[key] for key in expected}
    assert found.pop('bgr_to_rgb') == expected.pop('bgr_to_rgb')
    for key, values in expected.items():  # a grey level: EfficientNet-Lite's are 127 and 128
        assert found[key] == pytest.approx(values, abs=1)


@pytest.fixture(scope='module')
def ssdlite():
    """The config of a model, the model, and torchvision's."""
    cfg = Config.fromfile(ROOT / 'configs/ssdlite320_mobilenetv3_coco.py').model
    torch.manual_seed(0)
    untrained = dict(weights=None, weights_backbone=None, num_classes=81)
    theirs = torchvision.models.detection.ssdlite320_mobilenet_v3_large(**untrained)
    return cfg, MODELS.build(cfg).eval(), randomise_norms(theirs).eval()


def test_ssdlite_computes_what_torchvision_s_does(ssdlite):
    _, ours, theirs = ssdlite
    own, state = ours.state_dict(), theirs.state_dict()
    ours.load_state_dict(dict(zip(own, state.values(), strict=True)))
    x = images(320, 320, batch=1)
    with torch.no_grad():
        features = list(theirs.backbone(x).values())
        expected = theirs.head(features)
        scores, deltas = ours(x, mode='tensor')
    found = dict(cls_logits=to_flat(scores, 81), bbox_regression=to_flat(deltas, 4))
    for name, reference in expected.items():
        scale = reference.abs().max().item()
        assert scale > 1e-2
        torch.testing.assert_close(found[name], reference, rtol=1e-4, atol=1e-4 * scale)
    (priors,) = theirs.anchor_generator(ImageList(x, [(320, 320)]), features)
    torch.testing.assert_close(ours.bbox_head.get_priors(scores), priors, rtol=0, atol=1e-3)


def test_ssdlite_s_numbers_are_torchvision_s(ssdlite):
    cfg, detector, model = ssdlite
    test_cfg = cfg.test_cfg
    assert test_cfg.score_thr == model.score_thresh
    assert test_cfg.nms.iou_threshold == model.nms_thresh
    assert test_cfg.nms_pre == model.topk_candidates
    assert test_cfg.max_per_img == model.detections_per_img
    assert cfg.bbox_head.loss_cls.neg_pos_ratio == model.neg_to_pos_ratio
    assert cfg.train_cfg.assigner.pos_iou_thr == model.proposal_matcher.high_threshold
    assert cfg.data_preprocessor.mean == [255 * mean for mean in model.transform.image_mean]
    assert cfg.data_preprocessor.std == [255 * std for std in model.transform.image_std]
    ours, norms = (
        [m for m in one.modules() if isinstance(m, nn.BatchNorm2d)] for one in (detector, model)
    )
    assert [(m.eps, m.momentum) for m in ours] == [(m.eps, m.momentum) for m in norms]
