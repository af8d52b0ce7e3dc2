# SSD512 on VOC07+12: the paper reports 79.8 mAP on VOC2007 test. Batch and schedule of SSD300.
_base_ = [
    '_base_/models/ssd512_vgg16.py',
    '_base_/datasets/voc0712.py',
    '_base_/schedules/voc_120k.py',
    '_base_/default_runtime.py',
]
input_size = 512

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
