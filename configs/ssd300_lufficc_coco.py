# SSD300 as lufficc/SSD (github.com/lufficc/SSD) has it: for its weights, brought here by
# tools/convert_checkpoint.py. Its author reports 25.2 AP (minival2014).
_base_ = 'ssd300_coco.py'

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
    # All of a class before NMS, and 100 of all classes after it.
    test_cfg=dict(nms_pre=-1, max_per_img=100),
)

_base_.augment.update(mean=mean)
train_pipeline = [*_base_.load, _base_.augment, _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
