"""Every command that takes a checkpoint says in one line what another file is."""

import runpy
import sys

import pytest
import torch
from torchvision.models import resnet18

from ssd_plugin.checkpoints.layouts import shapes_of
from tests.support.commands import ROOT
from tests.support.weights import layout_of

EVALUATING = {
    'test': 'test demo.py FILE',
    'show matches': 'show matches demo.py --checkpoint FILE',
    'show errors': 'show errors demo.py FILE',
    'show pr': 'show pr demo.py FILE',
}
LOADING = EVALUATING | {
    'detect': 'detect demo.py FILE image.jpg --out detected',
    'export': 'export_onnx demo.py FILE out.onnx --images image.jpg',
    'train --load-from': 'train demo.py --load-from FILE --work-dir work',
}
READING = LOADING | {
    'convert': 'convert_checkpoint auto FILE out.pth',
    'train --resume': 'train demo.py --resume FILE --work-dir work',
    'train Pretrained': 'train demo.py --work-dir work --cfg-options model.backbone.init_cfg.type='
    'Pretrained model.backbone.init_cfg.checkpoint=FILE',
}
NO_CHECKPOINT = 'is not a checkpoint of PyTorch: '
UNREADABLE = {  # files that hold nothing that PyTorch can read
    'notes.txt': f'notes.txt {NO_CHECKPOINT}it is a text file',
    'config.py': f'config.py {NO_CHECKPOINT}it is a text file',
    'empty.pth': f'empty.pth {NO_CHECKPOINT}the file is empty',
    'cut.pth': f'cut.pth {NO_CHECKPOINT}it is cut off or damaged: copy it again',
    'old_cut.pth': f'old_cut.pth {NO_CHECKPOINT}it is cut off or damaged',
    'page.pth': f'page.pth {NO_CHECKPOINT}it is a web page or XML',
    'lfs.pth': f'lfs.pth {NO_CHECKPOINT}it is a pointer of Git LFS: get the file itself',
    'model.onnx': f'model.onnx {NO_CHECKPOINT}it is an ONNX file, which tools/detect.py and ',
    'folder': 'folder is a folder: name a checkpoint in it',
}
OTHER_MODELS = {  # weights of something else than the config's detector
    'ssdlite.pth': 'ssdlite.pth does not fit the config: it has 6 levels of 6, 6, 6, 6, 6, 6 '
    'priors a cell, the config 4 levels of 4, 4, 4, 4 priors a cell; it is an SSDLite320',
    'resnet18.pth': 'resnet18.pth does not fit the config: it has no bbox_head, but conv1, bn1, '
    "layer1, layer2, layer3, layer4 and 1 more; a backbone's weights are loaded by model.backbone.",
    'vgg.pth': "vgg.pth is torchvision's SSD300 as torchvision names it: convert it first, python "
    'tools/convert_checkpoint.py torchvision vgg.pth OUT.pth',
    'lacking.pth': 'lacking.pth does not fit the config: it has no backbone.conv1.weight',
}


@pytest.fixture(scope='module')
def files(demo_folder):
    """The files, in the directory of the commands."""
    whole = (demo_folder / 'weights.pth').read_bytes()
    torch.save(torch.load(demo_folder / 'weights.pth'), demo_folder / 'old_cut.pth',
               _use_new_zipfile_serialization=False)  # fmt: skip
    old = (demo_folder / 'old_cut.pth').read_bytes()
    contents = {
        'notes.txt': 'what I tried: größer\n'.encode() * 100,
        'config.py': b"classes = ('cat',)\nmodel = dict()\n",  # 'c' names a class in a pickle
        'empty.pth': b'',
        'cut.pth': whole[: len(whole) // 2],
        'old_cut.pth': old[: len(old) // 2],
        'page.pth': b'\n<!DOCTYPE html><html>Sign in</html>',
        'lfs.pth': b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n',
        'model.onnx': b'\x08\x08\x12\x07pytorch',
    }
    for name, content in contents.items():
        (demo_folder / name).write_bytes(content)
    (demo_folder / 'folder').mkdir()
    zeros = lambda shapes: {name: torch.zeros(()).expand(s) for name, s in shapes.items()}  # noqa: E731
    lacking = torch.load(demo_folder / 'weights.pth')
    del lacking['state_dict']['backbone.conv1.weight']
    states = {
        'ssdlite.pth': zeros(shapes_of('SSDLite320', 81)),
        'resnet18.pth': resnet18().state_dict(),
        'vgg.pth': zeros({n: s for n, (_, s) in layout_of('torchvision').parameters(91).items()}),
        'lacking.pth': lacking,
    }
    for name, state in states.items():
        torch.save(state, demo_folder / name)
    return demo_folder


@pytest.fixture
def last_line(files, monkeypatch):
    """What a command ends with."""
    monkeypatch.chdir(files)
    before = sorted(path.name for path in files.iterdir())

    def call(line, file):
        tool, *args = line.replace('FILE', file).split()
        monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *args])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(ROOT / 'tools' / f'{tool}.py'), run_name='__main__')
        written = {path.name for path in files.iterdir()} - {*before, 'work', 'work_dirs'}
        assert not written
        return caught.value.code

    return call


@pytest.mark.parametrize('file', UNREADABLE)
@pytest.mark.parametrize('command', READING)
def test_a_file_that_is_no_checkpoint_is_named(command, file, last_line):
    said = last_line(READING[command], file)
    expected = UNREADABLE[file]
    if command in ('detect', 'test') and file == 'model.onnx':  # which they take, but not this
        expected = 'model.onnx is no ONNX file that ONNX Runtime can run'
    if command == 'train --resume' and file != 'folder':
        expected = f'{file} is damaged (cut off or changed): name another with --resume'
    assert said.startswith(expected) and '\n' not in said


@pytest.mark.parametrize('file', OTHER_MODELS)
@pytest.mark.parametrize('command', LOADING)
def test_weights_of_another_model_are_named(command, file, last_line):
    said = last_line(LOADING[command], file)
    assert said.startswith(OTHER_MODELS[file]) and '\n' not in said
