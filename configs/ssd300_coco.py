# SSD300 on COCO: the paper reports 25.1 AP (test-dev2015).
_base_ = [
    '_base_/models/ssd300_vgg16.py',
    '_base_/datasets/coco2017.py',
    '_base_/schedules/coco_240k.py',
    '_base_/default_runtime.py',
]
model = dict(
    bbox_head=dict(
        num_classes=80,
        # Smaller than on VOC, for COCO's smaller objects (paper, section 3.4).
        anchor_generator=dict(
            min_sizes=[21, 45, 99, 153, 207, 261], max_sizes=[45, 99, 153, 207, 261, 315]
        ),
    )
)
