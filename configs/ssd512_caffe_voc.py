# SSD512 of the paper's authors in Caffe (github.com/weiliu89/caffe): for their weights, brought
# here by tools/convert_checkpoint.py. They report 79.8 mAP on VOC2007 test.
_base_ = 'ssd512_voc.py'

mean = [104, 117, 123]  # BGR
model = dict(
    data_preprocessor=dict(mean=mean, bgr_to_rgb=False),
    bbox_head=dict(
        # Caffe's PriorBox cuts sizes off to whole pixels.
        anchor_generator=dict(
            min_sizes=[35, 76, 153, 230, 307, 384, 460],
            max_sizes=[76, 153, 230, 307, 384, 460, 537],
        ),
        # Boxes may reach beyond the image.
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2), clip_border=False
        ),
    ),
)

_base_.augment.update(mean=mean[::-1])  # RGB
train_pipeline = [*_base_.load, _base_.augment, _base_.pack]
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(year, pipeline=train_pipeline) for year in _base_.train_dataloader.dataset.datasets
        ]
    )
)
