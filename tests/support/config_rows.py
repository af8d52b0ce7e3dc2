"""A config with its data, weights and a directory of its own, to run each command with."""

import gc
import io
import json
import runpy
import sys
from contextlib import redirect_stdout
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmdet.registry import DATASETS
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from ssd_plugin.datasets.config import input_size
from ssd_plugin.datasets.shapes import draw_image
from ssd_plugin.visualization.visualizer import DetectionVisualizer
from tests.support.commands import ROOT
from tests.support.drawn_data import write_data, write_shapes
from tests.support.exported import lively_detector
from tests.support.weights import TRAINED

SPLITS = ('train', 'val', 'test')
PATHS = sorted((ROOT / 'configs').glob('*.py'))
# PISA changes nothing but the loss: one row, of ssd300_pisa_coco, is enough. Of the configs for
# weights of Caffe and of lufficc/SSD, it is ssd300_caffe_voc, whose images are BGR.
ALIKE = {'ssd512_pisa_coco'} | {
    f'{model}_{source}_{data}'
    for model in ('ssd300', 'ssd512')
    for source in ('caffe', 'lufficc')
    for data in ('voc', 'coco')
} - {'ssd300_caffe_voc'}
NAMES = [path.stem for path in PATHS if 'pisa' not in path.stem and path.stem not in ALIKE]
# Configs that are trained on a folder of one's own are not used without one.
WITH_DATA = [
    path.stem
    for path in PATHS
    if Config.fromfile(path, import_custom_modules=False).get('data_root') != 'data/own/'
    and path.stem not in ALIKE
]


class Row:
    """A config, and in its folder the data that it reads, ``weights.pth`` and images to detect on.

    The images are ``image.jpg``, one in ``images`` and the frame of ``clip.mp4``; all differ.
    """

    def __init__(self, folder: Path, config: Path) -> None:
        # MMEngine collects garbage for each data set: a quarter of a second, if all that the tests
        # have imported is looked through.
        gc.collect()
        gc.freeze()
        self.folder, self.config = folder, config
        init_default_scope('mmdet')
        self.cfg = Config.fromfile(config)
        dataset = self.cfg.test_dataloader.dataset
        metainfo = dataset.get('metainfo') or DATASETS.get(dataset.type).METAINFO
        self.classes = tuple(metainfo['classes'])
        self.size = input_size(self.cfg)
        self.weights = folder / 'weights.pth'
        self.write_weights()
        (folder / 'images').mkdir()
        images = [draw_image(np.random.default_rng(seed))[0] for seed in range(3)]
        cv2.imwrite(str(folder / 'image.jpg'), images[0])
        cv2.imwrite(str(folder / 'images/other.png'), images[1])
        height, width = images[2].shape[:2]
        codec = cv2.VideoWriter_fourcc(*'mp4v')
        video = cv2.VideoWriter(str(folder / 'clip.mp4'), codec, 25, (width, height))
        video.write(images[2])
        video.release()

    def write_weights(self) -> None:
        """Write a checkpoint as training does, of a detector that finds much."""
        model = lively_detector(self.cfg, self.size)
        meta = dict(dataset_meta=dict(classes=self.classes))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), self.weights)
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        image = torch.empty(1, 3, *self.size[::-1], device='meta')
        _, deltas = model.to('meta')(image, mode='tensor')
        self.num_priors = sum(level.numel() for level in deltas) // 4
        coder = self.cfg.model.bbox_head.get('bbox_coder', {})
        self.clips = coder.get('clip_border', True)

    def run(self, command: str, *args: object) -> str:
        """Run a command of tools/ in the folder, in this process; answers what it prints."""
        return run_here(self.folder, command, *args)

    @property
    def in_this_process(self) -> list[str]:
        """``--cfg-options`` by which images are loaded without other processes."""
        options = [f'{split}_dataloader.num_workers=0' for split in SPLITS]
        options += [f'{split}_dataloader.persistent_workers=False' for split in SPLITS]
        return ['--cfg-options', *options]

    @property
    def two_iterations(self) -> list[str]:
        """``--cfg-options`` that cut training to two iterations from the row's own weights."""
        # Batch normalisation can't do with one image, VGG-16 takes a second for each.
        backbone = self.cfg.model.backbone
        batch_size = 1 if backbone.type == 'SSDVGG' else 2
        options = [f'load_from={self.weights}', 'model.backbone.init_cfg=None']
        options += ['randomness.seed=0']  # augmentation may leave no object: the loss is 0
        if backbone.type in TRAINED:
            options += [f'model.backbone.{TRAINED[backbone.type]}=None']
        options += [f'train_dataloader.batch_size={batch_size}', 'train_cfg.val_interval=2']
        if self.cfg.train_cfg.type == 'IterBasedTrainLoop':
            options += ['train_cfg.max_iters=2']
        else:
            indices = f'train_dataloader.dataset.indices={2 * batch_size}'
            options += ['train_cfg.max_epochs=1', indices]
        hooks = ['logger.interval=1', 'checkpoint.save_optimizer=False']
        options += [f'default_hooks.{option}' for option in hooks]
        return [*self.in_this_process, *options]

    @cached_property
    def trained(self) -> Path:
        """The work directory of a training of two iterations."""
        work_dir = self.folder / 'trained'
        self.run('train', self.config, '--work-dir', work_dir, *self.two_iterations)
        return work_dir

    @property
    def checkpoint(self) -> Path:
        """What that training has written."""
        return Path((self.trained / 'last_checkpoint').read_text())

    @cached_property
    def exported(self) -> Path:
        """The detector as an ONNX file, which the command has compared with it on an image."""
        if self.cfg.model.backbone.type == 'SSDVGG' and torch.__version__ < (2, 2):
            pytest.skip('PyTorch 2.1 exports no ceil_mode of pooling for batches of any size')
        path = self.folder / 'exported.onnx'
        self.run('export_onnx', self.config, self.weights, path, '--images', 'image.jpg')
        return path

    @cached_property
    def found_by_program(self) -> list[tuple[str, list[float], float]]:
        """What MMDetection's ``DetInferencer`` finds on the image: classes, boxes xyxy, scores."""
        inferencer = DetInferencer(str(self.config), str(self.weights), 'cpu', show_progress=False)
        (found,) = inferencer(str(self.folder / 'image.jpg'))['predictions']
        rows = zip(found['labels'], found['bboxes'], found['scores'], strict=True)
        return [(self.classes[label], box, score) for label, box, score in rows]

    @cached_property
    def threshold(self) -> float:
        """The score that 15 of those detections reach: to draw more takes longer than detecting."""
        scores = sorted((score for *_, score in self.found_by_program), reverse=True)
        return (scores[14] + scores[15]) / 2

    def detect(self, checkpoint: Path) -> Path:
        """Folder with the detections on the image, the folder and the video."""
        out = self.folder / f'found_by_{checkpoint.name}'
        if not out.exists():
            inputs = ('image.jpg', 'images', 'clip.mp4')
            options = ('--score-thr', self.threshold, '--out', out)
            self.run('detect', self.config, checkpoint, *inputs, *options)
        return out


def row_of(name: str, folder: Path) -> Row:
    """A config of ``configs/``, with data in the layout that it names."""
    config = ROOT / f'configs/{name}.py'
    write_data(Config.fromfile(config), folder, num_train=4, num_test=1)
    return Row(folder, config)


def data_root_row_of(name: str, folder: Path) -> Row:
    """The config that training a config on a folder of one's own writes."""
    write_shapes(folder / 'mine', ('cat', 'dog', 'cat', 'dog', 'cat'), num_train=4, num_test=1)
    config, work_dir = ROOT / f'configs/{name}.py', folder / 'fitted'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, 'train', lambda runner: None)  # all is written before
        options = ['--work-dir', work_dir, '--cfg-options', 'model.backbone.init_cfg=None']
        run_here(folder, 'train', config, '--data-root', 'mine', *options)
    (written,) = work_dir.glob('*.py')
    return Row(folder, written)


def run_here(folder: Path, command: str, *args: object) -> str:
    """Run a command of tools/ in a folder as if in a new process; answers what it prints."""
    for kind in (
        MessageHub,
        MMLogger,
        DetLocalVisualizer,
        DetectionVisualizer,
    ):  # those of an earlier run
        kind._instance_dict.clear()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.chdir(folder)
        patch.setattr(sys, 'argv', [f'{command}.py', *map(str, args)])
        runpy.run_path(str(ROOT / f'tools/{command}.py'), run_name='__main__')
    return said.getvalue()


def metrics_in(work_dir: Path) -> dict:
    """What the last evaluation in a work directory has measured, as MMEngine leaves it there."""
    (path,) = (p for p in work_dir.glob('*/*.json') if p.stem == p.parent.name)
    return json.loads(path.read_text())
