"""Other implementations and ours, with the same weights: the same scores, offsets, detections."""

import re
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.datasets import CocoDataset, VOCDataset
from mmdet.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch.nn.functional import interpolate
from torchvision.models.detection import (
    SSD300_VGG16_Weights,
    ssd300_vgg16,
    ssdlite320_mobilenet_v3_large,
)
from torchvision.ops import box_convert

from ssd_plugin.checkpoints.convert import check, convert, recognise, to_torchvision
from ssd_plugin.checkpoints.files import read
from ssd_plugin.checkpoints.layouts import LAYOUTS
from ssd_plugin.errors import CheckpointError
from tests.support.helpers import to_flat
from tests.support.peers import (
    SSDPyTorch,
    make_outputs_spread,
    random_image,
    run_torchvision,
    torchvision_model,
)
from tests.support.weights import assert_same, assert_same_detections, layout_of, random_state

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
MMDET_CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs' / 'pascal_voc'
RGB = random_image(seed=3)
CATEGORIES = SSD300_VGG16_Weights.COCO_V1.meta['categories']  # of 91 scores
USED = [i for i, name in enumerate(CATEGORIES) if i and name != 'N/A']
UNUSED = [i for i, name in enumerate(CATEGORIES) if name == 'N/A']


def build(config: str, num_classes: int):
    """A detector of one of our configs, in evaluation."""
    model = Config.fromfile(CONFIGS / config).model
    model.backbone.init_cfg = None
    model.bbox_head.num_classes = num_classes
    return MODELS.build(model).eval()


def build_mmdet(input_size: int, **priors):
    """MMDetection's own SSD on VOC."""
    model = Config.fromfile(MMDET_CONFIGS / f'ssd{input_size}_voc0712.py').model
    model.backbone.init_cfg = None
    model.bbox_head.anchor_generator.update(priors)
    # Ours is a limit for each class, theirs for each level: one that neither reaches.
    model.test_cfg.nms_pre = 10**6
    model = MODELS.build(model).eval()
    model.bbox_head.loss_cls = None  # it asks for it in prediction, and has none
    return model


def load(config: str, checkpoint: dict):
    """Our detector with converted weights: nothing missing, nothing left over."""
    model = build(config, checkpoint['meta']['num_classes'])
    model.load_state_dict(checkpoint['state_dict'])
    return model


@torch.no_grad()
def run(model, rgb=RGB):
    """Scores (1, P, K), offsets (1, P, 4) and detections of an image of the input's size."""
    shape = rgb.shape[:2]
    sample = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1, 1)))
    bgr = torch.tensor(rgb).permute(2, 0, 1).flip(0)
    batch = model.data_preprocessor(dict(inputs=[bgr], data_samples=[sample]))
    maps = model.bbox_head(model.extract_feat(batch['inputs']))
    metas = [sample.metainfo for sample in batch['data_samples']]
    (found,) = model.bbox_head.predict_by_feat(*maps, batch_img_metas=metas)
    per_prior = maps[1][0].size(1) // 4
    scores, offsets = to_flat(maps[0], maps[0][0].size(1) // per_prior), to_flat(maps[1], 4)
    return scores, offsets, (found.bboxes, found.scores, found.labels)


def assert_agree(ours, scores, offsets, found):
    """What `run` answers is what a peer gives, up to rounding."""
    for one, other in zip(ours, (scores, offsets)):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()
    assert_same_detections(ours[2], found)


# --------------------------------------------------------------------------------- torchvision


@pytest.fixture(scope='module')
def torchvision_ssd300():
    """torchvision's detector, and what it makes of the image."""
    model = torchvision_model(ssd300_vgg16, 6)
    return model, run_torchvision(model, RGB)


def test_torchvision_s_ssd300_gives_the_same_here(torchvision_ssd300):
    peer, (scores, offsets, found) = torchvision_ssd300
    checkpoint = convert(peer.state_dict(), layout_of('torchvision'))
    assert checkpoint['meta']['config'] == 'ssd300_torchvision_coco.py'
    ours = run(load('ssd300_torchvision_coco.py', checkpoint))
    assert_agree(ours, scores.roll(-1, dims=2), offsets, found)


def test_there_and_back_is_the_identity(torchvision_ssd300):
    state = torchvision_ssd300[0].state_dict()
    back = to_torchvision(convert(state, layout_of('torchvision')))
    assert_same(back, dict(state))


def test_torchvision_s_ssdlite_gives_the_same_here_and_after_the_way_back():
    """With COCO's 91 outputs, those that stand for no class as low as training makes them."""
    peer = torchvision_model(ssdlite320_mobilenet_v3_large, 91, lead=19)
    for level in peer.head.classification_head.module_list:
        level[-1].bias.data.view(-1, 91)[:, UNUSED] -= 40
    rgb = random_image(320, 320, seed=3)
    scores, offsets, found = run_torchvision(peer, rgb)
    found = (*found[:2], torch.tensor([USED.index(i + 1) for i in found[2].tolist()]))

    checkpoint = convert(peer.state_dict(), layout_of('torchvision', 'SSDLite320'))
    assert checkpoint['meta']['config'] == 'ssdlite320_mobilenetv3_coco.py'
    ours = run(load('ssdlite320_mobilenetv3_coco.py', checkpoint), rgb)
    assert_agree(ours, scores[..., [*USED, 0]], offsets, found)

    peer.load_state_dict(to_torchvision(checkpoint))
    _, _, (boxes, probabilities, labels) = run_torchvision(peer, rgb)
    labels = torch.tensor([USED.index(i + 1) for i in labels.tolist()])
    assert_same_detections((boxes, probabilities, labels), found)


def test_coco_s_ids_become_coco_s_classes_and_come_back():
    layout = layout_of('torchvision')
    state = random_state(layout, 91)
    checkpoint = convert(state, layout)
    back = to_torchvision(checkpoint)
    classes = checkpoint['meta']['dataset_meta']['classes']
    assert classes == CocoDataset.METAINFO['classes'] == tuple(CATEGORIES[i] for i in USED)
    assert checkpoint['meta']['num_classes'] == 80
    assert back.keys() == state.keys()
    for level, per_prior in enumerate((4, 6, 6, 6, 4, 4)):
        for kind in ('weight', 'bias'):
            name = f'head.classification_head.module_list.{level}.{kind}'
            before = state[name].view(per_prior, 91, -1)
            ours = checkpoint['state_dict'][f'bbox_head.cls_convs.{level}.0.{kind}']
            after = back[name].view(per_prior, 91, -1)
            assert torch.equal(ours.view(per_prior, 81, -1), before[:, [*USED, 0]])
            assert torch.equal(after[:, [0, *USED]], before[:, [0, *USED]])
            assert (after[:, UNUSED] == (0 if kind == 'weight' else -1e4)).all()
    # Whatever the others are, softmax makes nothing of it.
    assert torch.tensor([-50.0, -1e4]).softmax(0).tolist() == [1, 0]


@pytest.mark.parametrize('num_scores', [91, 81])
def test_as_many_classes_of_other_names_are_all_kept(num_scores):
    layout = layout_of('torchvision')
    state = random_state(layout, num_scores)
    names = tuple(f'class {i}' for i in range(1, num_scores))
    checkpoint = convert(state, layout, classes=names)
    assert checkpoint['meta']['dataset_meta']['classes'] == names
    assert checkpoint['meta']['num_classes'] == num_scores - 1
    assert_same(to_torchvision(checkpoint), state)


def test_our_resizing_is_torchvision_s():
    """Real numbers, bilinear, and without smoothing before: OpenCV's and PyTorch's agree."""
    pipeline = Config.fromfile(CONFIGS / 'ssd300_torchvision_coco.py').test_pipeline
    assert pipeline[0].to_float32
    resize = TRANSFORMS.build(pipeline[1])
    for size in ((240, 320), (500, 375), (100, 90)):
        rgb = random_image(*size, seed=1).astype('float32')
        ours = torch.tensor(resize(dict(img=rgb))['img']).permute(2, 0, 1)
        image = torch.tensor(rgb).permute(2, 0, 1)[None]
        theirs = interpolate(image, size=(300, 300), mode='bilinear')
        assert (ours - theirs[0]).abs().max() < 1e-2  # of 255


# --------------------------------------------------------------------------------- ssd.pytorch


def test_ssd_pytorch_s_gives_the_same_here():
    torch.manual_seed(0)
    peer = SSDPyTorch().eval()
    make_outputs_spread(peer.conf, peer.loc, background=0, num_scores=21)
    # Images come as OpenCV reads them, less the mean, then channels are swapped.
    blue_first = torch.tensor(RGB[..., ::-1].astype('float32')) - torch.tensor([104, 117, 123])
    with torch.no_grad():
        scores, offsets = peer(blue_first[..., [2, 1, 0]].permute(2, 0, 1)[None])
    boxes, *found = peer.detect(scores[0], offsets[0])

    checkpoint = convert(peer.state_dict(), layout_of('ssd.pytorch'))
    assert checkpoint['meta']['config'] == 'ssd300_ssdpytorch_voc.py'
    assert checkpoint['meta']['dataset_meta']['classes'] == VOCDataset.METAINFO['classes']
    ours = run(load('ssd300_ssdpytorch_voc.py', checkpoint))
    assert_agree(ours, scores.roll(-1, dims=2), offsets, (boxes * 300, *found))


@pytest.mark.parametrize('name', ['ssd300_ssdpytorch_voc', 'ssd300_lufficc_voc'])
def test_priors_of_the_last_cells_have_their_centres_at_the_border(name):
    generator = TASK_UTILS.build(
        Config.fromfile(CONFIGS / f'{name}.py').model.bbox_head.anchor_generator
    )
    maps = [(side, side) for side in (38, 19, 10, 5, 3, 1)]
    ours = torch.cat(generator.grid_priors(maps, device='cpu'))
    centres_and_sides = box_convert(ours, 'xyxy', 'cxcywh')
    torch.testing.assert_close(centres_and_sides, SSDPyTorch().priors() * 300, rtol=0, atol=1e-3)
    assert centres_and_sides[:, :2].max() == 300


# --------------------------------------------------------------------------------- lufficc/SSD

LUFFICC_NAMES = {
    'vgg.': 'backbone.vgg.', 'extras.': 'backbone.extras.', 'L2Norm.': 'backbone.l2_norm.',
    'conf.': 'box_head.predictor.cls_headers.', 'loc.': 'box_head.predictor.reg_headers.',
}  # fmt: skip
LUFFICC_SIZES = {300: {}, 512: dict(sizes=[35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.65])}


@pytest.mark.parametrize('side', LUFFICC_SIZES)
def test_lufficc_s_gives_the_same_here(side, tmp_path):
    """It took ssd.pytorch's layers, with another head around and other limits."""
    torch.manual_seed(0)
    peer = SSDPyTorch(side=side, **LUFFICC_SIZES[side]).eval()
    make_outputs_spread(peer.conf, peer.loc, background=0, num_scores=21)
    rgb = random_image(side, side, seed=3)
    image = torch.tensor(rgb.astype('float32')) - torch.tensor([123, 117, 104])
    with torch.no_grad():
        scores, offsets = peer(image.permute(2, 0, 1)[None])
    boxes, *found = peer.detect(scores[0], offsets[0], most_of_class=None, most=100)
    assert len(boxes) == 100

    state = {
        re.sub(r'^\w+\.', lambda start: LUFFICC_NAMES[start[0]], name): value
        for name, value in peer.state_dict().items()
    }
    torch.save(dict(model=state, iteration=120000), tmp_path / 'in.pth')
    state, meta = read(tmp_path / 'in.pth')
    layout = recognise(state)
    assert str(layout) == f"lufficc's SSD{side}"
    checkpoint = convert(state, layout, meta)
    assert checkpoint['meta']['config'] == f'ssd{side}_lufficc_voc.py'
    assert checkpoint['meta']['dataset_meta']['classes'] == VOCDataset.METAINFO['classes']
    ours = run(load(f'ssd{side}_lufficc_voc.py', checkpoint), rgb)
    assert_agree(ours, scores.roll(-1, dims=2), offsets, (boxes * side, *found))


@pytest.mark.parametrize('source', ['caffe', 'lufficc'])
def test_coco_s_models_of_others_have_mmdetection_s_order_of_classes(source):
    layout = layout_of(source)
    meta = convert(random_state(layout, 81), layout)['meta']
    assert meta['config'] == f'ssd300_{source}_coco.py'
    assert meta['dataset_meta']['classes'] == CocoDataset.METAINFO['classes']


# --------------------------------------------------------------------------------- MMDetection

SIZES_512 = [35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6]
# By its own rule MMDetection rounds them down, to 35, 76, 153, ...
MMDET_MODELS = {300: {}, 512: dict(min_sizes=SIZES_512[:-1], max_sizes=SIZES_512[1:])}


@pytest.mark.parametrize('input_size', MMDET_MODELS)
def test_mmdetection_s_checkpoints_load_as_they_are(input_size):
    torch.manual_seed(0)
    peer = build_mmdet(input_size, **MMDET_MODELS[input_size])
    head = peer.bbox_head
    last_layers = [[level[-1] for level in convs] for convs in (head.cls_convs, head.reg_convs)]
    make_outputs_spread(*last_layers, background=-1, num_scores=21)
    torch.nn.init.constant_(peer.neck.l2_norm.weight, 20)
    rgb = random_image(input_size, input_size)
    theirs = run(peer, rgb)

    ours = build(f'ssd{input_size}_voc.py', 20)
    ours.load_state_dict(peer.state_dict())
    ours.bbox_head.test_cfg = peer.bbox_head.test_cfg
    assert_agree(run(ours, rgb), *theirs)

    checkpoint = convert(peer.state_dict(), layout_of('mmdet', f'SSD{input_size}'), dict(epoch=24))
    assert checkpoint['meta']['epoch'] == 24
    assert checkpoint['meta']['config'] == f'ssd{input_size}_voc.py'
    assert_same(checkpoint['state_dict'], dict(peer.state_dict()))


def test_mmdetection_s_ssd512_has_our_priors_with_sizes_rounded_down():
    """What docs/checkpoints.md advises for its published weights."""
    theirs = Config.fromfile(MMDET_CONFIGS / 'ssd512_voc0712.py').model.bbox_head.anchor_generator
    ours = Config.fromfile(CONFIGS / 'ssd512_voc.py').model.bbox_head.anchor_generator
    sizes = [int(size) for size in SIZES_512]
    docs = (CONFIGS.parent / 'docs' / 'checkpoints.md').read_text()
    for name, values in (('min_sizes', sizes[:-1]), ('max_sizes', sizes[1:])):
        assert f'{name}="{str(values).replace(" ", "")}"' in docs
        ours[name] = values
    maps = [(side, side) for side in (64, 32, 16, 8, 4, 2, 1)]
    built = [TASK_UTILS.build(generator) for generator in (ours, theirs)]
    assert_same(*(generator.grid_priors(maps, device='cpu') for generator in built), 1e-3)


def test_class_names_come_from_the_file_or_from_the_user():
    layout = layout_of('mmdet')
    state = random_state(layout, 3)
    for meta in (dict(CLASSES=['cat', 'dog']), dict(dataset_meta=dict(classes=('cat', 'dog')))):
        converted = convert(state, layout, meta)['meta']
        assert converted['dataset_meta']['classes'] == ('cat', 'dog')
    assert 'dataset_meta' not in convert(state, layout)['meta']
    assert convert(state, layout)['meta']['num_classes'] == 2
    with pytest.raises(CheckpointError, match='3 class names for 3 scores, .* 2 classes'):
        convert(state, layout, classes=('cat', 'dog', 'cow'))


def test_torchvision_has_no_ssd512():
    layout = layout_of('mmdet', 'SSD512')
    with pytest.raises(CheckpointError, match='torchvision has no SSD512'):
        to_torchvision(convert(random_state(layout, 3), layout))


# -------------------------------------------------------------------------- what a file is not


@pytest.mark.parametrize('layout', LAYOUTS, ids=str)
def test_a_layout_is_recognised_by_its_names(layout):
    state = random_state(layout, 3)
    assert recognise(state) is recognise(state, layout.source) is layout
    assert check(state, layout) == 3


def test_names_of_no_layout_are_not_recognised():
    with pytest.raises(CheckpointError, match=r"'fc\.weight' is a parameter in none of: .*SSD512"):
        recognise({'fc.weight': torch.zeros(1)})


@pytest.mark.parametrize(
    ('name', 'shape', 'message'),
    [
        ('neck.extra_layers.2.0.conv.weight', None, '(128, 256, 1, 1), this file: missing'),
        ('backbone.features.31.weight', (4, 2), 'shape (1024, 512, 3, 3), this file: (4, 2)'),
        ('bbox_head.cls_convs.1.0.bias', (30,), 'shape (18,), this file: (30,)'),
        ('bbox_head.cls_convs.0.0.bias', (), 'shape (12,), this file: ()'),
        ('backbone.features.35.weight', (8, 8), "mmdet's SSD300 has no such parameter"),
    ],
    ids=['missing', 'of another shape', 'of more classes', 'no tensor of channels', 'unknown'],
)
def test_the_first_wrong_parameter_is_named(name, shape, message):
    state = random_state(layout_of('mmdet'), 3)
    if shape is None:
        del state[name]
    else:
        state[name] = torch.zeros(()).expand(shape)
    with pytest.raises(CheckpointError, match=rf'^{re.escape(name)}: .*{re.escape(message)}'):
        convert(state, recognise(state, 'mmdet'))


def test_weights_of_another_implementation_are_not_what_is_claimed():
    state = random_state(layout_of('ssd.pytorch'), 3)
    layout = recognise(state, 'torchvision')
    with pytest.raises(CheckpointError, match=r'^backbone\.features\.0.* this file: missing'):
        convert(state, layout)


def test_class_layers_that_tell_no_number_of_classes_are_named():
    state = random_state(layout_of('mmdet'), 3).items()
    state = {name: value for name, value in state if 'cls_convs' not in name}
    with pytest.raises(CheckpointError, match=r'^bbox_head\.cls_convs\.0.*4 x outputs'):
        convert(state, recognise(state, 'mmdet'))
