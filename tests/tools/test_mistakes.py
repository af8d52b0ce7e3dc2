"""A user's mistake is answered with one line, and nothing is written."""

from pathlib import Path

import pytest

from tests.support.commands import ROOT
from tests.support.data_folders import write_boxes

DETECT = 'detect demo.py weights.pth'
EXPORT = 'export_onnx demo.py weights.pth'
EXPORT_IMAGE = f'{EXPORT} x.onnx --images image.jpg'
R18 = ROOT / 'configs/ssd512x288_r18_voc.py'
NO_DATA = '--cfg-options test_dataloader=None val_dataloader=None'
PIPELINE = '--cfg-options test_dataloader.dataset.pipeline'
TRAIN_ROOT = '--cfg-options train_dataloader.dataset.data_root'
MODEL = '--cfg-options model'

BASE = ROOT / 'configs/_base_/default_runtime.py'
PR = 'show pr demo.py weights.pth'
LAZY = 'from mmdet.models import RetinaNet\n\nmodel = dict(type=RetinaNet)\n'
MAX_EPOCHS = '--cfg-options train_cfg.max_epochs'

MISTAKES = {
    'detect none.py weights.pth data --out x': 'no config file none.py',
    'detect demo.py none.pth data --out x': 'no checkpoint file none.pth',
    'detect demo.py none.onnx data --out x': 'no checkpoint file none.onnx',
    f'{DETECT} data --out x': 'data: no images in this folder',
    f'{DETECT} data/*.gif --out x': 'data/*.gif: no such file or folder',
    'detect demo.py demo.py image.jpg --out x': 'demo.py is not a checkpoint of PyTorch',
    f'{DETECT} image.jpg --out x --device gpu': 'device gpu: ',
    f'{DETECT} image.jpg --out x {NO_DATA}': 'demo.py: no test_dataloader',
    f'{DETECT} image.jpg --out x {MODEL}.bbox_head.num_classes=3': (
        'weights.pth has 5 classes (circle, square, triangle, star, cross), the config 3 classes'
    ),
    'show priors nothing.py': 'no config file nothing.py',
    'show priors demo.py --image demo.py': 'demo.py is no image',
    'show priors demo.py --image none.jpg': 'none.jpg',
    f'show priors demo.py {PIPELINE}=[]': 'demo.py: the test pipeline',
    'show matches demo.py --index 6': '--index goes from 0 to 5',
    'show matches demo.py --checkpoint none.pth': 'no checkpoint file none.pth',
    'show errors demo.py none.pth': 'no checkpoint file none.pth',
    f'show augment demo.py {TRAIN_ROOT}=x/': 'x/',
    'show curves data': 'no training has been logged in data',
    'export_onnx none.py weights.pth x.onnx': 'no config file none.py',
    'export_onnx demo.py none.pth x.onnx': 'no checkpoint file none.pth',
    'export_onnx demo.py demo.py x.onnx --images image.jpg': 'demo.py is not a checkpoint',
    f'{EXPORT} x.pt': 'NAME.onnx, not x.pt',
    f'{EXPORT} none/x.onnx': 'no folder none',
    f'{EXPORT} x.onnx --images none.jpg': 'none.jpg',
    f'{EXPORT} x.onnx --images demo.py': 'demo.py is no image',
    f'export_onnx {R18} weights.pth x.onnx --images image.jpg': 'does not fit',
    f'{EXPORT_IMAGE} {MODEL}.test_cfg.score_thr=1': 'nothing is detected',
    f'{EXPORT_IMAGE} {MODEL}.test_cfg.nms.type=soft_nms': 'model.test_cfg.nms',
    f'{EXPORT_IMAGE} {PIPELINE}.1.keep_ratio=True': 'keep_ratio=False',
    f'{EXPORT} data.onnx': 'data.onnx is a folder',
    f'{PR} --device gpu': 'device gpu: ',
    f'{PR} --out-dir image.jpg': "can't write image.jpg/figure.png",
    f'{PR} --best-thresholds data': 'data is a folder',
    'show errors demo.py weights.pth --out-dir image.jpg': "can't write image.jpg/figure.png",
    'test demo.py weights.pth --out image.jpg/x.pkl': "can't write image.jpg/x.pkl",
    'test demo.py weights.pth --out folder.pkl': 'folder.pkl is a folder',
    f'get_flops {BASE}': 'default_runtime.py: no test_dataloader',
    f'train demo.py --epochs 2 {MAX_EPOCHS}=3': '--epochs N and train_cfg.max_epochs exclude',
    f'train demo.py {MODEL}.bbox_head.in_channels=(1,2,3,4)': 'bbox_head does not take maps of',
    'train lazy.py': 'lazy.py has classes for types: write their names',
    'fit_priors demo.py --out demo.py': 'demo.py is the config itself',
    'fit_priors nothing.py': 'no config file nothing.py',
    f'fit_priors demo.py {TRAIN_ROOT}=x/': 'x/',
    f'fit_priors demo.py {TRAIN_ROOT}=empty/': 'no object that can be used',
}


@pytest.mark.parametrize('line, said', MISTAKES.items(), ids=str)
def test_a_mistake_is_one_line(line, said, run):
    if 'fit_priors' in line:
        write_boxes('empty', [((160, 160), [])])
    Path('folder.pkl').mkdir(exist_ok=True)
    Path('data.onnx').mkdir(exist_ok=True)
    Path('lazy.py').write_text(LAZY)
    with pytest.raises(SystemExit) as caught:
        run(*line.split())
    assert said in caught.value.code and '\n' not in caught.value.code
    assert not list(Path().glob('x*'))


@pytest.mark.parametrize(
    'line, said',
    [
        ('show augment demo.py --num 0', "'0' is not a whole number from 1"),
        (f'{DETECT} data --out x --batch-size x', "'x' is not"),
        ('fit_priors demo.py --max-images -1', "'-1' is not a whole number"),
        ('fit_priors demo.py --out priors.json', '--out is a config'),
    ],
)
def test_arguments_are_checked(line, said, run, capsys):
    with pytest.raises(SystemExit):
        run(*line.split())
    assert said in capsys.readouterr().err
