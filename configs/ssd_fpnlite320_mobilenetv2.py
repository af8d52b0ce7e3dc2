# SSD FPNLite on MobileNetV2 of torchvision, from ImageNet's weights, for data of one's own:
# `python tools/train.py configs/ssd_fpnlite320_mobilenetv2.py --data-root DIR`.
_base_ = ['_base_/models/ssd_fpnlite320.py', '_base_/own_data.py']

model = dict(
    backbone=dict(
        type='TorchvisionBackbone',
        name='mobilenet_v2',
        nodes=('features.6', 'features.13', 'features.18'),  # before channels are expanded
        weights='DEFAULT',
    ),
    neck=dict(in_channels=[32, 96, 1280]),
)

# Light networks with batch normalisation take, and need, larger steps.
optim_wrapper = dict(optimizer=dict(lr=8e-3))
