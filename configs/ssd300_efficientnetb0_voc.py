# SSD300 on torchvision's EfficientNet-B0 (ImageNet weights), with the paper's recipe for VOC07+12.
_base_ = 'ssd300_voc.py'

channels = (240, 672, 1280, 512, 256, 256)
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='TorchvisionBackbone',
        name='efficientnet_b0',
        strides=(8, 16, 32),
        weights='DEFAULT',
    ),
    neck=dict(
        in_channels=channels[:3],
        out_channels=channels,
        level_strides=(2, 1, 1),
        level_paddings=(1, 0, 0),
        l2_norm_scale=None,  # the maps come from batch normalisation
    ),
    bbox_head=dict(in_channels=channels),
)

# Batch normalisation has the same running statistics in all processes.
custom_hooks = [*_base_.custom_hooks, dict(type='NormStatsHook')]
