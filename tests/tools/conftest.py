"""The commands, run in this process in a directory with data, a config and a detector."""

import importlib
import sys

import pytest
import torch

from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes
from tests.support.commands import ROOT
from tests.support.exported import lively_detector, read_config

CONFIG = f"""
_base_ = [{str(ROOT / 'configs/demo_shapes.py')!r}]
model = dict(test_cfg=dict(max_per_img=20))
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = test_dataloader = train_dataloader
"""


@pytest.fixture(scope='session')
def demo_folder(tmp_path_factory):
    """Six drawn images to train on and four to test on, a config, and a detector that finds much.

    They are ``data/shapes``, ``demo.py`` and ``weights.pth``; ``image.jpg`` is one more image.
    """
    folder = tmp_path_factory.mktemp('demo')
    write_voc_shapes(folder / 'data/shapes', num_train=6, num_test=4)
    write_voc_shapes(folder / 'more', num_train=0, num_test=1, seed=5)
    (folder / 'more/JPEGImages/000001.jpg').rename(folder / 'image.jpg')
    (folder / 'demo.py').write_text(CONFIG)
    detector = lively_detector(read_config('demo_shapes'), (160, 160))
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=detector.state_dict(), meta=meta), folder / 'weights.pth')
    return folder


@pytest.fixture
def run(demo_folder, monkeypatch, capsys):
    """Runs a command of tools/ in that directory; answers what it prints."""
    monkeypatch.chdir(demo_folder)

    def call(command, *args):
        monkeypatch.setattr(sys, 'argv', [f'{command}.py', *map(str, args)])
        importlib.import_module(command).main()
        return capsys.readouterr().out

    return call
