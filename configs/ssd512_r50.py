# SSD512 on ResNet-50 of torchvision, from ImageNet's weights, for data of one's own and a GPU:
# `python tools/train.py configs/ssd512_r50.py --data-root DIR`. Levels and priors are the paper's.
_base_ = ['_base_/models/ssd512_vgg16.py', '_base_/own_data.py']
input_size = 512

channels = (512, 1024, 2048, 512, 256, 256, 256)
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='TorchvisionBackbone',
        name='resnet50',
        strides=(8, 16, 32),
        weights='DEFAULT',
    ),
    neck=dict(
        in_channels=channels[:3],
        out_channels=channels,
        level_strides=(2, 2, 2, 1),
        level_paddings=(1, 1, 1, 1),
        l2_norm_scale=None,
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(num_classes=80, in_channels=channels),
)

_base_.augment.update(scale=(input_size, input_size))
_base_.test_resize.update(scale=(input_size, input_size))
train_pipeline = [*_base_.load, _base_.augment, _base_.pack]
test_pipeline = [_base_.test_load, _base_.test_resize, *_base_.test_pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
