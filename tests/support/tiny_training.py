"""A training run of seconds, with all of SSD's augmentation, for tests that kill it."""

import os
import signal
from pathlib import Path

from mmdet.registry import HOOKS, MODELS
from mmengine.hooks import Hook
from torch import nn

from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes

BATCH_SIZE = 2

CONFIG = """
custom_imports = dict(imports=['ssd_plugin', 'tests.support.tiny_training'])
default_scope = 'mmdet'
size = 64
classes = {classes}
data = dict(type='VOCDataset', data_root={data!r}, metainfo=dict(classes=classes),
            data_prefix=dict(sub_data_root=''))
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='SSDAugment', scale=size), dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(size, size), keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True), dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(
    batch_size={batch_size}, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(data, ann_file='ImageSets/Main/trainval.txt', pipeline=pipeline))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data, ann_file='ImageSets/Main/test.txt', pipeline=test_pipeline, test_mode=True))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='VOCMetric', metric='mAP')
val_cfg, test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=2)
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[128] * 3, std=[64] * 3),
    backbone=dict(type='ResNet', depth=18, base_channels=8, out_indices=(1, 2, 3),
                  norm_eval=False, frozen_stages=-1),
    neck=dict(type='DroppingNeck'),
    bbox_head=dict(
        type='SSDMultiBoxHead', num_classes=len(classes), in_channels=(16, 32, 64),
        anchor_generator=dict(
            type='SSDPriorGenerator', strides=[8, 16, 32], ratios=[[2]] * 3,
            min_sizes=[10, 22, 40], max_sizes=[22, 40, 58], input_size=size)),
    train_cfg=dict(assigner=dict(type='BatchMaxIoUAssigner')),
    test_cfg=dict(nms_pre=400, score_thr=0.01, nms=dict(type='nms', iou_threshold=0.45),
                  max_per_img=20))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=3, eta_min=1e-4, by_epoch=True,
         convert_to_iter_based=True)]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=2,
                    save_best='auto'))
visualizer = dict(type='DetLocalVisualizer')
custom_hooks = []
randomness = dict(seed=0)
"""
# As configs/ssd300_voc.py trains: by iterations, over an endless sampler.
BY_ITERATION = """
train_dataloader['sampler'] = dict(type='InfiniteSampler', shuffle=True)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=15, val_interval=6)
param_scheduler[1] = dict(type='MultiStepLR', milestones=[7, 12], by_epoch=False)
log_processor = dict(by_epoch=False)
"""
# In mixed precision, and what is kept and evaluated is a running average of the weights.
AVERAGED = """
optim_wrapper['type'] = 'CPUAmpOptimWrapper'
custom_hooks.append(dict(type='EMAHook', momentum=0.1))
"""
DYING = "custom_hooks.append(dict(type='DyingHook'))\n"
# For runners of other kinds: nothing draws random numbers of its own.
PLAIN = """
model.pop('neck')
pipeline[2:3] = [
    dict(type='TrainOnDifficult'), dict(type='Resize', scale=(size, size), keep_ratio=False)]
"""


@MODELS.register_module()
class DroppingNeck(nn.Module):
    """Drops a tenth of the features: so the model, too, draws random numbers."""

    def forward(self, features):
        return tuple(nn.functional.dropout(x, 0.1, self.training) for x in features)


@HOOKS.register_module()
class DyingHook(Hook):
    """Kills the run in its first validation and, when that has been made up for, right after it."""

    has_validated = False

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.die_once(runner, 'in_validation')

    def after_val_epoch(self, runner, metrics=None):
        self.has_validated = True

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.has_validated:
            self.die_once(runner, 'after_validation')

    def die_once(self, runner, where):
        marker = Path(runner.work_dir) / f'died_{where}'
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def write_training(folder: Path, extra: str = '', num_train: int = 10) -> Path:
    """Data, with two images to test on, and a config; with ten to train on, 15 iterations."""
    data = write_voc_shapes(folder / 'data', num_train=num_train, num_test=2, seed=0)
    path = folder / 'tiny.py'
    text = CONFIG.format(classes=CLASSES, data=f'{data}/', batch_size=BATCH_SIZE)
    path.write_text(text + extra)
    return path
