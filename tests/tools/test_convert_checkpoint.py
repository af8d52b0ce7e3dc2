"""The command, as a user types it: weights there and back, and what it says of a wrong file."""

import pickle

import cv2
import pytest
import torch
from torchvision.models.detection import ssd300_vgg16

from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes
from tests.support.caffe_ssd import MODELS, caffemodel, random_weights
from tests.support.commands import ROOT, run_warm
from tests.support.peers import run_torchvision, torchvision_model
from tests.support.weights import (
    Payload,
    assert_same,
    assert_same_detections,
    layout_of,
    random_state,
)

CONVERT = ROOT / 'tools' / 'convert_checkpoint.py'
CONFIG = """
_base_ = '{root}/configs/ssd300_torchvision_coco.py'
classes = {classes}
model = dict(bbox_head=dict(num_classes=len(classes)))
test_dataloader = dict(
    batch_size=1, num_workers=0, persistent_workers=False,
    dataset=dict(
        _delete_=True, type='VOCDataset', data_root='shapes/', test_mode=True,
        ann_file='ImageSets/Main/test.txt', data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=classes), pipeline={{{{_base_.test_pipeline}}}}))
test_evaluator = dict(_delete_=True, type='VOCMetric', metric='mAP')
"""


def test_a_torchvision_model_detects_the_same_with_our_test_tool(tmp_path):
    data = write_voc_shapes(tmp_path / 'shapes', num_train=0, num_test=3, seed=0)
    (tmp_path / 'config.py').write_text(CONFIG.format(root=ROOT, classes=CLASSES))
    peer = torchvision_model(ssd300_vgg16, len(CLASSES) + 1, lead=13)
    images = [cv2.imread(str(path))[..., ::-1] for path in sorted(data.glob('*Images/*.jpg'))]
    expected = [run_torchvision(peer, rgb.copy())[2] for rgb in images]
    assert len({rgb.shape for rgb in images}) > 1
    torch.save(peer.state_dict(), tmp_path / 'in.pth')

    said = run_warm(
        CONVERT, 'torchvision', 'in.pth', 'out.pth', '--classes', ','.join(CLASSES), cwd=tmp_path
    )
    assert "out.pth: torchvision's SSD300, 5 classes (circle, square, triangle, ...)" in said
    assert "_base_ = 'configs/ssd300_torchvision_coco.py', model.bbox_head.num_classes=5" in said
    run_warm(ROOT / 'tools' / 'test.py', 'config.py', 'out.pth', '--out', 'dets.pkl', cwd=tmp_path)

    detections = pickle.loads((tmp_path / 'dets.pkl').read_bytes())
    assert len(detections) == len(expected)
    for found, theirs in zip(detections, expected):
        found = found['pred_instances']
        ours = (found['bboxes'], found['scores'], found['labels'])
        assert_same_detections(ours, theirs, most=5e-3)


@pytest.fixture
def weights(tmp_path):
    """A file with weights of torchvision's SSD300 for two classes."""
    layout = layout_of('torchvision')
    torch.save(random_state(layout, 3), tmp_path / 'in.pth')
    return tmp_path / 'in.pth'


def test_there_and_back_on_the_command_line(weights, tmp_path, run):
    here, back = tmp_path / 'here.pth', tmp_path / 'back.pth'
    run('convert_checkpoint', 'auto', weights, here, '--classes', 'cat,dog')
    converted = torch.load(here, weights_only=True)
    assert converted['meta'] == dict(
        source="torchvision's SSD300", config='ssd300_torchvision_coco.py', num_classes=2,
        dataset_meta=dict(classes=('cat', 'dog')),
    )  # fmt: skip
    said = run('convert_checkpoint', 'mmdet', here, back, '--to', 'torchvision')
    assert 'load_state_dict' in said
    assert_same(*(torch.load(path, weights_only=True) for path in (weights, back)))

    again = tmp_path / 'again.pth'
    run('convert_checkpoint', 'auto', here, again)
    assert torch.load(again, weights_only=True)['meta'] == converted['meta']


def test_weights_of_a_config_s_own_classes_are_tested_by_a_command(tmp_path, run):
    torch.save(random_state(layout_of('ssd.pytorch'), 21), tmp_path / 'in.pth')
    out = tmp_path / 'out.pth'
    last = run('convert_checkpoint', 'ssd.pytorch', tmp_path / 'in.pth', out).splitlines()[-1]
    assert last == f'Next: python tools/test.py configs/ssd300_ssdpytorch_voc.py {out}'


def test_a_caffemodel_of_three_classes_is_converted_whatever_it_is_called(tmp_path, run):
    model = MODELS['ssd300_caffe_voc']._replace(num_scores=4)
    for name, source in (('in.caffemodel', 'auto'), ('in.bin', 'caffe')):
        (tmp_path / name).write_bytes(caffemodel(random_weights(model, seed=0)))
        args = source, tmp_path / name, tmp_path / 'out.pth', '--classes', 'cat,dog,cow'
        said = run('convert_checkpoint', *args)
        assert "out.pth: caffe's SSD300, 3 classes (cat, dog, cow)" in said
        assert "_base_ = 'configs/ssd300_caffe_voc.py', model.bbox_head.num_classes=3" in said


USER_ERRORS = {
    'no file': (['auto', 'nowhere.pth', 'out.pth'], 'nowhere.pth'),
    'no folder': (['auto', 'in.pth', 'nowhere/out.pth'], 'no folder nowhere'),
    'a folder': (['auto', 'in.pth', 'folder'], 'folder is a folder'),
    'of another': (['ssd.pytorch', 'in.pth', 'out.pth'], "vgg.0.weight: ssd.pytorch's SSD300"),
    'no checkpoint': (['auto', 'text.pth', 'out.pth'], 'text.pth is not a checkpoint'),
    'no message of Caffe': (['caffe', 'text.pth', 'out.pth'], 'text.pth is not a .caffemodel'),
    'code': (['auto', 'code.pth', 'out.pth'], 'code.pth is refused'),
    'class names': (['auto', 'in.pth', 'out.pth', '--classes', 'cat'], '1 class names for 3 sc'),
}


@pytest.mark.parametrize('case', USER_ERRORS)
def test_a_users_mistake_is_one_line_and_leaves_the_output_alone(
    case, weights, tmp_path, monkeypatch, capsys, run
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'text.pth').write_text('no weights')
    torch.save(dict(model=Payload(tmp_path / 'ran')), tmp_path / 'code.pth')
    (tmp_path / 'out.pth').write_text('as it was')
    args, said = USER_ERRORS[case]
    with pytest.raises(SystemExit) as end:
        run('convert_checkpoint', *args)
    assert said in end.value.code and '\n' not in end.value.code
    assert (tmp_path / 'out.pth').read_text() == 'as it was'
    assert not (tmp_path / 'ran').exists()
    assert not capsys.readouterr().out
