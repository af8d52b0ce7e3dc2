# SSD300 on torchvision's Swin-T (ImageNet weights), for VOC07+12. Optimiser of MMDetection's Mask
# R-CNN on Swin-T, mask-rcnn_swin-t-p4-w7_fpn_1x_coco.
_base_ = 'ssd300_voc.py'

channels = (192, 384, 768, 512, 256, 256)
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='TorchvisionBackbone',
        name='swin_t',
        strides=(8, 16, 32),
        weights='DEFAULT',
    ),
    neck=dict(
        in_channels=channels[:3],
        out_channels=channels,
        level_strides=(2, 1, 1),
        level_paddings=(1, 0, 0),
    ),
    bbox_head=dict(in_channels=channels),
)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='MergingOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.0)),
    ),
)
