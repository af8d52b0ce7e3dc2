# SSD512 on VOC07+12: the paper reports 79.8 mAP on VOC2007 test. Batch and schedule of SSD300.
_base_ = [
    '_base_/models/ssd512_vgg16.py',
    '_base_/datasets/voc0712.py',
    '_base_/schedules/voc_120k.py',
    '_base_/default_runtime.py',
]
input_size = 512

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[3].scale = test_pipeline[1].scale = (input_size, input_size)

train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(year, pipeline=train_pipeline) for year in _base_.train_dataloader.dataset.datasets
        ]
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
