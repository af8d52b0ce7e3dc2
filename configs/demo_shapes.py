# A light SSD on drawn shapes, trained from scratch on two CPU cores in a few minutes: our head,
# priors, assigner and loss on a small ResNet of MMDetection's.
_base_ = ['_base_/default_runtime.py']

classes = ('circle', 'square', 'triangle', 'star', 'cross')
data_root = 'data/shapes/'
prepare_data = 'python tools/prepare_data.py shapes data/shapes'
input_size = 160
max_epochs = 26

norm_cfg = dict(type='BN')
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[127.5] * 3, std=[64] * 3, bgr_to_rgb=True
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=16,
        out_indices=(1, 2, 3),
        norm_cfg=norm_cfg,
        norm_eval=False,
    ),
    neck=dict(
        type='SSDNeck',
        in_channels=(32, 64, 128),
        out_channels=(32, 64, 128, 128),
        level_strides=(2,),
        level_paddings=(1,),
        l2_norm_scale=None,
        norm_cfg=norm_cfg,
    ),
    bbox_head=dict(
        type='SSDMultiBoxHead',
        num_classes=len(classes),
        in_channels=(32, 64, 128, 128),
        anchor_generator=dict(
            type='SSDPriorGenerator',
            input_size=input_size,
            strides=[8, 16, 32, 64],
            ratios=[[2]] * 4,
            basesize_ratio_range=(0.16, 0.6),
        ),
    ),
    train_cfg=dict(assigner=dict(type='BatchMaxIoUAssigner')),
    test_cfg=dict(
        nms_pre=400,
        score_thr=0.01,
        nms=dict(type='nms', iou_threshold=0.45),
        max_per_img=200,
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='TrainOnDifficult'),
    dict(type='Resize', scale=(input_size, input_size), keep_ratio=False),
    dict(type='RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(input_size, input_size), keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
dataset = dict(type='CheckedVOCDataset', data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        ann_file='ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root=''),
        pipeline=train_pipeline,
        **dataset,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file='ImageSets/Main/test.txt',
        data_prefix=dict(sub_data_root=''),
        test_mode=True,
        pipeline=test_pipeline,
        **dataset,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='VOCDetMetric', eval_mode='area')
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.06, momentum=0.9, weight_decay=5e-4, nesterov=True),
    clip_grad=dict(max_norm=35),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        T_max=max_epochs,
        eta_min=3e-4,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    checkpoint=dict(by_epoch=True, interval=max_epochs, save_best=None), logger=dict(interval=25)
)
# Batch normalisation has the same running statistics in all processes.
custom_hooks = [*_base_.custom_hooks, dict(type='NormStatsHook')]
log_processor = dict(by_epoch=True)
randomness = dict(seed=0)
