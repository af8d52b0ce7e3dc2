# SSD on torchvision's ConvNeXt-T (ImageNet weights), for VOC07+12. At 320 pixels: its first layer
# cuts the image into squares of 4 pixels and its later ones halve without padding, which leaves
# borders of 300 out. Sizes are SSD300's shares of the input. Optimiser of MMDetection's Mask R-CNN
# on ConvNeXt-T, mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco, but with one learning rate for
# all layers: there it falls towards the first.
_base_ = 'ssd300_voc.py'
input_size = 320

channels = (192, 384, 768, 512, 256, 256)
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='TorchvisionBackbone',
        name='convnext_tiny',
        strides=(8, 16, 32),
        weights='DEFAULT',
    ),
    neck=dict(
        in_channels=channels[:3],
        out_channels=channels,
        level_strides=(2, 1, 1),
        level_paddings=(1, 0, 0),
        l2_norm_scale=None,  # the first maps come from layer normalisation
    ),
    bbox_head=dict(
        in_channels=channels,
        anchor_generator=dict(
            input_size=input_size,
            strides=[input_size / cells for cells in (40, 20, 10, 5, 3, 1)],
            min_sizes=[32, 64, 118.4, 172.8, 227.2, 281.6],
            max_sizes=[64, 118.4, 172.8, 227.2, 281.6, 336],
        ),
    ),
)

_base_.augment.update(scale=(input_size, input_size))
_base_.test_resize.update(scale=(input_size, input_size))
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

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='MergingOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(layer_scale=dict(decay_mult=0.0)),
    ),
)
