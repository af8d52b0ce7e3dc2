# SSDLite on MobileNetV2 of torchvision, from ImageNet's weights, for data of one's own:
# `python tools/train.py configs/ssdlite320_mobilenetv2.py --data-root DIR`.
_base_ = ['_base_/models/ssdlite320.py', '_base_/own_data.py']

channels = (192, 576, 1280, 256, 256, 128)
model = dict(
    backbone=dict(
        type='TorchvisionBackbone', name='mobilenet_v2', strides=(8, 16, 32), weights='DEFAULT'
    ),
    neck=dict(in_channels=channels[:3], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)

# Light networks with batch normalisation take, and need, larger steps.
optim_wrapper = dict(optimizer=dict(lr=8e-3))
