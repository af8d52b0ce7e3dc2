"""A user's mistake is answered with one line, and nothing is written."""

from pathlib import Path

import pytest

from tests.support.commands import ROOT
from tests.support.data_folders import write_boxes

DETECT = ['detect', 'demo.py', 'weights.pth']
EXPORT = ['export_onnx', 'demo.py', 'weights.pth', 'x.onnx']
IMAGES = ['--images', 'image.jpg']
OPTIONS = '--cfg-options'
TO = ['--out', 'x']
PIPELINE = 'test_dataloader.dataset.pipeline'
TRAIN_ROOT = 'train_dataloader.dataset.data_root'

MISTAKES = [
    (['detect', 'none.py', 'weights.pth', 'data', *TO], 'no config file none.py'),
    (['detect', 'demo.py', 'none.pth', 'data', *TO], 'no checkpoint file none.pth'),
    (['detect', 'demo.py', 'none.onnx', 'data', *TO], 'no checkpoint file none.onnx'),
    ([*DETECT, 'data', *TO], 'data: no images in this folder'),
    ([*DETECT, 'data/*.gif', *TO], 'data/*.gif: no such file or folder'),
    (['detect', 'demo.py', 'demo.py', 'image.jpg', *TO], 'demo.py is not a checkpoint of PyTorch'),
    ([*DETECT, 'image.jpg', *TO, '--device', 'gpu'], 'device gpu: '),
    (
        [*DETECT, 'image.jpg', *TO, OPTIONS, 'test_dataloader=None', 'val_dataloader=None'],
        'demo.py: no test_dataloader',
    ),
    (
        [*DETECT, 'image.jpg', *TO, OPTIONS, 'model.bbox_head.num_classes=3'],
        'weights.pth does not fit the config: size mismatch for bbox_head.cls_convs.0.0.weight',
    ),
    (['show', 'priors', 'nothing.py'], 'no config file nothing.py'),
    (['show', 'priors', 'demo.py', '--image', 'demo.py'], 'demo.py is no image'),
    (['show', 'priors', 'demo.py', '--image', 'none.jpg'], 'none.jpg'),
    (['show', 'priors', 'demo.py', OPTIONS, f'{PIPELINE}=[]'], 'demo.py: the test pipeline'),
    (['show', 'matches', 'demo.py', '--index', 6], '--index goes from 0 to 5'),
    (['show', 'matches', 'demo.py', '--checkpoint', 'none.pth'], 'no checkpoint file none.pth'),
    (['show', 'errors', 'demo.py', 'none.pth'], 'no checkpoint file none.pth'),
    (['show', 'augment', 'demo.py', OPTIONS, f'{TRAIN_ROOT}=x/'], 'x/'),
    (['show', 'curves', 'data'], 'no training has been logged in data'),
    (['export_onnx', 'none.py', *EXPORT[2:]], 'no config file none.py'),
    (['export_onnx', 'demo.py', 'none.pth', 'x.onnx'], 'no checkpoint file none.pth'),
    (['export_onnx', 'demo.py', 'demo.py', 'x.onnx', *IMAGES], 'demo.py is not a checkpoint'),
    ([*EXPORT[:3], 'x.pt'], 'NAME.onnx, not x.pt'),
    ([*EXPORT[:3], 'none/x.onnx'], 'no folder none'),
    ([*EXPORT, '--images', 'none.jpg'], 'none.jpg'),
    ([*EXPORT, '--images', 'demo.py'], 'demo.py is no image'),
    (['export_onnx', ROOT / 'configs/ssd512x288_r18_voc.py', *EXPORT[2:], *IMAGES], 'does not fit'),
    ([*EXPORT, *IMAGES, OPTIONS, 'model.test_cfg.score_thr=1'], 'nothing is detected'),
    ([*EXPORT, *IMAGES, OPTIONS, 'model.test_cfg.nms.type=soft_nms'], 'model.test_cfg.nms'),
    ([*EXPORT, *IMAGES, OPTIONS, f'{PIPELINE}.1.keep_ratio=True'], 'keep_ratio=False'),
    (['fit_priors', 'nothing.py'], 'no config file nothing.py'),
    (['fit_priors', 'demo.py', OPTIONS, f'{TRAIN_ROOT}=x/'], 'x/'),
    (['fit_priors', 'demo.py', OPTIONS, f'{TRAIN_ROOT}=empty/'], 'no object that can be used'),
]


@pytest.mark.parametrize(
    'args, said', MISTAKES, ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_a_mistake_is_one_line(args, said, run):
    if 'fit_priors' in args:
        write_boxes('empty', [((160, 160), [])])
    with pytest.raises(SystemExit) as caught:
        run(*args)
    assert said in caught.value.code and '\n' not in caught.value.code
    assert not list(Path().glob('x*'))


@pytest.mark.parametrize(
    'args, said',
    [
        (['show', 'augment', 'demo.py', '--num', 0], "'0' is not a whole number from 1"),
        (['detect', 'demo.py', 'weights.pth', 'data', *TO, '--batch-size', 'x'], "'x' is not"),
        (['fit_priors', 'demo.py', '--max-images', '-1'], "'-1' is not a whole number"),
        (['fit_priors', 'demo.py', '--out', 'priors.json'], '--out is a config'),
    ],
)
def test_arguments_are_checked(args, said, run, capsys):
    with pytest.raises(SystemExit):
        run(*args)
    assert said in capsys.readouterr().err
