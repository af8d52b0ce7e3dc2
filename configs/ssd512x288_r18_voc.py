# An SSD of one's own, for wide images: 512 x 288 pixels, five levels on ResNet-18, prior sizes
# by the paper's linear rule (formula 4) on the shorter side. Nobody has published such a model.
_base_ = [
    '_base_/models/ssd300_vgg16.py',
    '_base_/datasets/voc0712.py',
    '_base_/schedules/voc_120k.py',
    '_base_/default_runtime.py',
]
input_size = (512, 288)

channels = (128, 256, 512, 256, 256)
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        out_indices=(1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'),
    ),
    neck=dict(
        in_channels=(128, 256, 512),
        out_channels=channels,
        level_strides=(2, 2),
        level_paddings=(1, 1),
        l2_norm_scale=None,
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(
        in_channels=channels,
        anchor_generator=dict(
            _delete_=True,
            type='SSDPriorGenerator',
            input_size=input_size,
            # 288 pixels are 3 cells high on the last map: as (w, h), so that none lies below.
            strides=[8, 16, 32, 64, (128, 96)],
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2]],
            basesize_ratio_range=(0.1, 0.9),  # 28.8, 86.4, 144, 201.6, 259.2 and 316.8 pixels
        ),
    ),
)

_base_.augment.update(scale=input_size)
_base_.test_resize.update(scale=input_size)
train_pipeline = [*_base_.load, _base_.augment, _base_.pack]
test_pipeline = [_base_.test_load, _base_.test_resize, *_base_.test_pack]
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(year, pipeline=train_pipeline) for year in _base_.train_dataloader.dataset.datasets
        ]
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# Batch normalisation has the same running statistics in all processes.
custom_hooks = [*_base_.custom_hooks, dict(type='NormStatsHook')]
