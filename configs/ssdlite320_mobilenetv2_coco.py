# SSDLite on MobileNetV2 from scratch, with the recipe of MMDetection's
# ssdlite_mobilenetv2-scratch_8xb24-600e_coco, whose authors report 21.3 AP (val2017).
_base_ = [
    '_base_/models/ssd300_vgg16.py',
    '_base_/datasets/coco2017.py',
    '_base_/schedules/coco_240k.py',
    '_base_/default_runtime.py',
]
input_size = 320
max_epochs = 600

channels = (96, 1280, 512, 256, 256, 128)
norm_cfg = dict(type='BN', eps=0.001, momentum=0.03)
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(4, 7),
        norm_cfg=norm_cfg,
        init_cfg=dict(type='TruncNormal', layer='Conv2d', std=0.03),
    ),
    neck=dict(
        in_channels=(96, 1280),
        out_channels=channels,
        level_strides=(2, 2, 2, 2),
        level_paddings=(1, 1, 1, 1),
        l2_norm_scale=None,
        use_depthwise=True,
        norm_cfg=norm_cfg,
        act_cfg=dict(type='ReLU6'),
        init_cfg=dict(type='TruncNormal', layer='Conv2d', std=0.03),
    ),
    bbox_head=dict(
        num_classes=80,
        in_channels=channels,
        use_depthwise=True,
        norm_cfg=norm_cfg,
        act_cfg=dict(type='ReLU6'),
        anchor_generator=dict(
            input_size=input_size,
            strides=[16, 32, 64, 107, 160, 320],
            ratios=[[2, 3]] * 6,
            min_sizes=[48, 100, 150, 202, 253, 304],
            max_sizes=[100, 150, 202, 253, 304, 320],
        ),
        init_cfg=dict(type='Normal', layer='Conv2d', std=0.001),
    ),
    test_cfg=dict(nms_pre=1000, score_thr=0.02),
)

_base_.augment.update(scale=(input_size, input_size))
_base_.test_resize.update(scale=(input_size, input_size))
train_pipeline = [*_base_.load, _base_.augment, _base_.pack]
test_pipeline = [_base_.test_load, _base_.test_resize, *_base_.test_pack]
train_dataloader = dict(
    batch_size=24,  # on each of 8 GPUs
    sampler=dict(type='DefaultSampler'),
    dataset=dict(filter_cfg=dict(min_size=32), pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=25)
optim_wrapper = dict(
    optimizer=dict(lr=0.015, weight_decay=4e-5),  # for 192 images a step
    paramwise_cfg=dict(_delete_=True),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=max_epochs, eta_min=0),
]
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=5))
# Batch normalisation has the same running statistics in all processes.
custom_hooks = [*_base_.custom_hooks, dict(type='NormStatsHook')]
log_processor = dict(by_epoch=True)
auto_scale_lr = dict(base_batch_size=192)
