# SSD FPNLite on MobileNetV2 at 640 x 640, for small objects in data of one's own: the squares of a
# level have 4 and 5.7 times its stride, as in TensorFlow's.
_base_ = 'ssd_fpnlite320_mobilenetv2.py'
input_size = 640

model = dict(
    bbox_head=dict(
        anchor_generator=dict(
            input_size=input_size,
            strides=[8, 16, 32, 64, 128],
            min_sizes=[32, 64, 128, 256, 512],
            max_sizes=[64, 128, 256, 512, 640],
        )
    )
)

_base_.augment.update(scale=(input_size, input_size))
_base_.test_resize.update(scale=(input_size, input_size))
train_pipeline = [*_base_.load, _base_.augment, _base_.pack]
test_pipeline = [_base_.test_load, _base_.test_resize, *_base_.test_pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
