# SSDLite on MobileNetV3-Large from scratch, with the recipe of ssdlite320_mobilenet_v3_large of
# torchvision (models/detection/ssdlite.py, references/detection), whose authors report 21.3 AP
# (val2017).
_base_ = [
    '_base_/models/ssd300_vgg16.py',
    '_base_/datasets/coco2017.py',
    '_base_/default_runtime.py',
]
input_size = 320
own_data_recipe = 'ssd_plugin::_base_/own_data.py'  # for `--data-root`: docs/your_data.md
max_epochs = 660

channels = (672, 480, 512, 256, 256, 128)
norm_cfg = dict(type='BN', eps=0.001, momentum=0.03)
init_cfg = dict(type='Normal', layer='Conv2d', std=0.03)  # torchvision's; the head has its own
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # images from -1 to 1
    backbone=dict(
        _delete_=True,
        type='TorchvisionBackbone',
        name='mobilenet_v3_large',
        nodes=('features.13.block.0', 'features.16'),  # the expansion of C4, and the last layer
        model_args=dict(reduced_tail=True),  # as torchvision does without pretrained weights
        norm_cfg=norm_cfg,
        init_cfg=init_cfg,
    ),
    neck=dict(
        in_channels=channels[:2],
        out_channels=channels,
        level_strides=(2, 2, 2, 2),
        level_paddings=(1, 1, 1, 1),
        l2_norm_scale=None,
        use_depthwise=True,
        norm_cfg=norm_cfg,
        act_cfg=dict(type='ReLU6'),
        init_cfg=init_cfg,
    ),
    bbox_head=dict(
        num_classes=80,
        in_channels=channels,
        use_depthwise=True,
        norm_cfg=norm_cfg,
        act_cfg=dict(type='ReLU6'),
        anchor_generator=dict(
            input_size=input_size,
            strides=[input_size / cells for cells in (20, 10, 5, 3, 2, 1)],
            ratios=[[2, 3]] * 6,
            # Scales from 0.2 to 0.95 of the input; the last is followed by the whole of it.
            min_sizes=[64, 112, 160, 208, 256, 304],
            max_sizes=[112, 160, 208, 256, 304, 320],
            clip_sides=True,
        ),
    ),
    test_cfg=dict(nms_pre=300, score_thr=0.001, nms=dict(iou_threshold=0.55), max_per_img=300),
)

_base_.augment.update(  # torchvision's "ssdlite": crop and mirror
    scale=(input_size, input_size),
    brightness_delta=0,
    contrast_range=(1, 1),
    saturation_range=(1, 1),
    hue_delta=0,
    ratio_range=(1, 1),
)
_base_.test_load.update(to_float32=True)  # torchvision does not round resized images
_base_.test_resize.update(scale=(input_size, input_size))
train_pipeline = [*_base_.load, _base_.augment, _base_.pack]
test_pipeline = [_base_.test_load, _base_.test_resize, *_base_.test_pack]
train_dataloader = dict(
    batch_size=24,  # on each of 8 GPUs
    sampler=dict(type='DefaultSampler'),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.15, momentum=0.9, weight_decay=4e-5),
)
param_scheduler = [
    # During the first epoch, of 610 iterations.
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=609),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=max_epochs, eta_min=0),
]
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=10))
# Batch normalisation has the same running statistics in all processes.
custom_hooks = [*_base_.custom_hooks, dict(type='NormStatsHook')]
log_processor = dict(by_epoch=True)
auto_scale_lr = dict(enable=False, base_batch_size=192)
