"""`TimmBackbone` is the timm model that it names, up to the maps asked for."""

import re
import sys
from urllib.error import URLError

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.model import Sequential
from torch import nn

from ssd_plugin.errors import CheckpointError, MissingPackageError

timm = pytest.importorskip('timm')
huggingface_hub = pytest.importorskip('huggingface_hub')

# With the names of what comes before the end of stride 4, to freeze.
STAGE_1 = {
    'resnet18': ('conv1.', 'bn1.', 'layer1.'),
    'tf_efficientnet_lite0': ('conv_stem.', 'bn1.', 'blocks.0.', 'blocks.1.'),
    'convnext_atto': ('stem_0.', 'stem_1.', 'stages_0.'),
    'mobilenetv3_small_050': ('conv_stem.', 'bn1.', 'blocks.0.'),
    'mobilenetv4_conv_small_050': ('conv_stem.', 'bn1.', 'blocks.0.'),
    'regnety_002': ('stem.', 's1.'),
    'vgg11_bn': tuple(f'features_{n}.' for n in range(13)),
    'efficientvit_b0': ('stem_in_conv.', 'stem_res0.', 'stages_0.'),
    'densenet121': ('features_conv0.', 'features_norm0.', 'features_denseblock1.'),
    'swin_tiny_patch4_window7_224': ('patch_embed.', 'layers_0.'),
}
SWIN = dict(name='swin_tiny_patch4_window7_224', model_args=dict(img_size=224))


def build(name='resnet18', **arguments):
    if 'out_indices' not in arguments:
        arguments.setdefault('strides', (8, 16))
    return MODELS.build(dict(type='TimmBackbone', name=name, **arguments))


def images(side=64):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def saved(name, folder, **changes):
    """A file of a whole timm model's weights, and the state in it."""
    torch.manual_seed(1)
    state = timm.create_model(name).state_dict() | changes
    torch.save(state, folder / 'weights.pth')
    return str(folder / 'weights.pth'), state


@pytest.mark.parametrize('name', [*STAGE_1][:6])
def test_maps_are_those_of_timm_with_the_weights_of_a_file(name, tmp_path):
    path, state = saved(name, tmp_path)
    backbone = build(name, strides=(32, 8), pretrained=path)
    Sequential(backbone).init_weights()
    overlay = dict(state_dict=state)
    peer = timm.create_model(
        name, features_only=True, pretrained=True, pretrained_cfg_overlay=overlay
    )
    info = peer.feature_info
    expected = dict(zip(info.reduction(), zip(info.channels(), peer.eval()(images()))))
    for stride, channels, found in zip((32, 8), backbone.out_channels, backbone.eval()(images())):
        assert (channels, backbone.out_strides) == (expected[stride][0], (32, 8))
        assert torch.equal(found, expected[stride][1])
        assert found.shape == (2, channels, 64 // stride, 64 // stride)


@pytest.mark.parametrize('inherited', [False, True, 'another.pth'])
def test_a_config_names_the_file_as_everywhere_in_mmdetection(inherited, tmp_path):
    path, state = saved('resnet18', tmp_path)
    init_cfg = dict(type='Pretrained', checkpoint=path)
    backbone = build(pretrained=inherited, init_cfg=init_cfg)
    detector = Sequential(backbone)
    assert not torch.equal(backbone.model.conv1.weight, state['conv1.weight'])
    detector.init_weights()
    assert torch.equal(backbone.model.conv1.weight, state['conv1.weight'])
    nn.init.zeros_(backbone.model.conv1.weight)
    detector.init_weights()
    assert not backbone.model.conv1.weight.any()


def test_maps_by_number_and_by_stride_are_the_same():
    by_number, by_stride = build(out_indices=(2, 4)), build(strides=(8, 32))
    assert by_number.out_strides == by_stride.out_strides == (8, 32)
    assert by_number.state_dict().keys() == by_stride.state_dict().keys()


def test_maps_are_channels_first_where_the_model_has_them_last():
    maps = build(**SWIN)(images(224))
    assert [tuple(value.shape) for value in maps] == [(2, 192, 28, 28), (2, 384, 14, 14)]


def test_arguments_reach_the_model():
    expanded = build('tf_efficientnet_lite0', model_args=dict(feature_location='expansion'))
    assert expanded.out_channels == (240, 672)  # what SSDLite takes
    dropped = build(drop_path_rate=0.3)
    assert build(model_args=dict(drop_path_rate=0.3)).model_args == dropped.model_args
    rates = [getattr(module, 'drop_prob', 0) for module in dropped.modules()]
    assert max(rates) > 0


@pytest.mark.parametrize(
    ('name', 'norm_eval'), [('resnet18', True), *((name, False) for name in STAGE_1)]
)
def test_frozen_stages_neither_learn_nor_change_their_mode(name, norm_eval):
    backbone = build(name, frozen_stages=1, norm_eval=norm_eval).eval()
    backbone.train()
    maps = backbone(images(224 if 'swin' in name else 64))
    sum(value.square().sum() for value in maps).backward()
    learning = 0
    for key, parameter in backbone.model.named_parameters():
        frozen = key.startswith(STAGE_1[name])
        assert parameter.requires_grad != frozen, key
        assert parameter.grad is None or not frozen, key
        learning += parameter.grad is not None
    assert learning > 10
    for key, module in backbone.model.named_modules():
        if isinstance(module, (nn.BatchNorm2d, timm.layers.DropPath)):
            eval_only = norm_eval and isinstance(module, nn.BatchNorm2d)
            assert module.training != (eval_only or f'{key}.'.startswith(STAGE_1[name])), key


def test_maps_that_are_computed_side_by_side_have_no_stages_to_freeze():
    backbone = build('hrnet_w18_small', frozen_stages=0)  # the stem comes before all of them
    frozen = {key for key, p in backbone.model.named_parameters() if not p.requires_grad}
    assert frozen == {'conv1.weight', 'bn1.weight', 'bn1.bias'}
    with pytest.raises(ValueError, match='hrnet_w18_small computes its map at stride 8 beside'):
        build('hrnet_w18_small', frozen_stages=2)


def test_preprocessing_is_the_weights():
    assert build('tf_efficientnet_lite0').preprocessing == dict(
        mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True
    )
    assert build().preprocessing['mean'] == [123.675, 116.28, 103.53]


MISTAKES = {
    'closest: resnet18': dict(name='resnet81'),
    'no feature map of stride 5; there are 0 at stride 2, 1 at stride 4': dict(strides=(8, 5)),
    'no feature map of index 9; there are 0 at': dict(out_indices=(2, 9)),
    'no feature map of stride 256': dict(frozen_stages=7),
    'either out_indices or strides': dict(out_indices=(2,), strides=(8,)),
    'init_cfg, not both': dict(pretrained=True, init_cfg=dict(type='Kaiming')),
}


@pytest.mark.parametrize('message', MISTAKES)
def test_a_mistake_is_told_with_what_there_is(message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        build(**MISTAKES[message])
    assert '\n' not in str(caught.value)


def test_an_argument_that_a_model_does_not_take_is_told():
    with pytest.raises(TypeError, match='timm builds no vgg11 with drop_path_rate'):
        build('vgg11', drop_path_rate=0.1)


@pytest.mark.parametrize(
    'content', ['text', {'conv1.weight': torch.zeros(1)}, {}], ids=['text', 'shape', 'empty']
)
def test_a_file_that_is_no_weights_of_the_model_is_one_line(content, tmp_path):
    path = tmp_path / 'weights.pth'
    path.write_text('text') if content == 'text' else torch.save(content, path)
    with pytest.raises(CheckpointError, match='is not the weights of resnet18') as caught:
        build(pretrained=str(path)).init_weights()
    assert '\n' not in str(caught.value)


def test_a_file_s_classifier_need_not_fit(tmp_path):
    path, state = saved('resnet18', tmp_path, **{'fc.weight': torch.zeros(3, 512)})
    backbone = build(pretrained=path)
    backbone.init_weights()
    assert torch.equal(backbone.model.conv1.weight, state['conv1.weight'])


def test_a_file_serves_an_extractor_with_arguments_of_its_own(tmp_path):
    path, state = saved('tf_efficientnet_lite0', tmp_path)
    own = dict(feature_location='expansion')
    backbone = build('tf_efficientnet_lite0', pretrained=path, model_args=own)
    backbone.init_weights()
    assert torch.equal(backbone.model.conv_stem.weight, state['conv_stem.weight'])


def test_a_missing_file_is_told_when_it_is_needed():
    backbone = build(pretrained='nowhere.pth')
    with pytest.raises(CheckpointError, match=r'no file nowhere\.pth'):
        backbone.init_weights()


def test_weights_that_cannot_be_downloaded_are_told_with_the_address(monkeypatch):
    def unreachable(*args, **kwargs):
        raise URLError('no network\nat all')

    monkeypatch.setattr(huggingface_hub.file_download, '_hf_hub_download_to_cache_dir', unreachable)
    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', unreachable)
    backbone = build('resnet18.a1_in1k', pretrained=True)
    with pytest.raises(CheckpointError) as caught:
        backbone.init_weights()
    said = str(caught.value)
    assert 'https://huggingface.co/timm/resnet18.a1_in1k' in said and '\n' not in said
    assert 'name the file in place of True' in said


def test_without_timm_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(MissingPackageError, match=r"pip install 'ssd-plugin\[timm\]'"):
        build()
