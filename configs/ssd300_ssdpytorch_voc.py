# SSD300 as ssd.pytorch (github.com/amdegroot/ssd.pytorch) has it: for its weights, brought here by
# tools/convert_checkpoint.py. Its authors report 77.4 mAP on VOC2007 test.
_base_ = 'ssd300_voc.py'

mean = [123, 117, 104]
model = dict(
    data_preprocessor=dict(mean=mean),
    bbox_head=dict(
        anchor_generator=dict(type='CenterClippedPriorGenerator', clip_sides=True),
        # Boxes may reach beyond the image.
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2), clip_border=False
        ),
    ),
    # 200 of a class before NMS, and all that are left of all classes after it.
    test_cfg=dict(nms_pre=200, max_per_img=-1),
)

_base_.augment.update(mean=mean)
train_pipeline = [*_base_.load, _base_.augment, _base_.pack]
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(year, pipeline=train_pipeline) for year in _base_.train_dataloader.dataset.datasets
        ]
    )
)
