# SSD FPNLite on EfficientNet-Lite0 of timm, from ImageNet's weights, for data of one's own:
# `python tools/train.py configs/ssd_fpnlite320_efficientnetlite0.py --data-root DIR`.
_base_ = ['_base_/models/ssd_fpnlite320.py', '_base_/own_data.py']

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        type='TimmBackbone', name='tf_efficientnet_lite0', strides=(8, 16, 32), pretrained=True
    ),
    neck=dict(in_channels=[40, 112, 320]),
)

# Light networks with batch normalisation take, and need, larger steps.
optim_wrapper = dict(optimizer=dict(lr=8e-3))
