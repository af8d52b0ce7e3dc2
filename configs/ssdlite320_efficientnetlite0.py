# SSDLite on EfficientNet-Lite0 of timm, from ImageNet's weights, for data of one's own:
# `python tools/train.py configs/ssdlite320_efficientnetlite0.py --data-root DIR`.
_base_ = ['_base_/models/ssdlite320.py', '_base_/own_data.py']

channels = (240, 672, 1152, 256, 256, 128)
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        type='TimmBackbone',
        name='tf_efficientnet_lite0',
        strides=(8, 16, 32),
        pretrained=True,
        model_args=dict(feature_location='expansion'),
    ),
    neck=dict(in_channels=channels[:3], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)

# Light networks with batch normalisation take, and need, larger steps.
optim_wrapper = dict(optimizer=dict(lr=8e-3))
