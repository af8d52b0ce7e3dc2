# SSD300 of the paper on VGG-16, from ImageNet's weights, for data of one's own and a GPU:
# `python tools/train.py configs/ssd300_vgg16.py --data-root DIR`.
_base_ = ['_base_/models/ssd300_vgg16.py', '_base_/own_data.py']
input_size = 300

model = dict(
    # The weights that the paper starts from, for images with std 1, but for fc6 and fc7. These two
    # start from PyTorch's small weights: from Xavier's, the first loss is nearly three times as
    # high.
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://vgg16.imagenet1k_features')
    ),
    bbox_head=dict(num_classes=80),
)

_base_.augment.update(scale=(input_size, input_size))
_base_.test_resize.update(scale=(input_size, input_size))
train_pipeline = [*_base_.load, _base_.augment, _base_.pack]
test_pipeline = [_base_.test_load, _base_.test_resize, *_base_.test_pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# Nothing here is normalised over a batch.
custom_hooks = [hook for hook in _base_.custom_hooks if hook.type != 'NormStatsHook']
