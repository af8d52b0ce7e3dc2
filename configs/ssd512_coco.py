# SSD512 on COCO: the paper reports 28.8 AP (test-dev2015). Batch and schedule of SSD300.
_base_ = [
    '_base_/models/ssd512_vgg16.py',
    '_base_/datasets/coco2017.py',
    '_base_/schedules/coco_240k.py',
    '_base_/default_runtime.py',
]
input_size = 512

model = dict(
    bbox_head=dict(
        num_classes=80,
        # 4 % of 512, then 10 % to 90 % in equal steps.
        anchor_generator=dict(
            min_sizes=[20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8],
            max_sizes=[51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72],
        ),
    )
)

_base_.augment.update(scale=(input_size, input_size))
_base_.test_resize.update(scale=(input_size, input_size))
train_pipeline = [*_base_.load, _base_.augment, _base_.pack]
test_pipeline = [_base_.test_load, _base_.test_resize, *_base_.test_pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
