# SSD300 on COCO: the paper reports 25.1 AP (test-dev2015).
_base_ = [
    '_base_/models/ssd300_vgg16.py',
    '_base_/datasets/coco2017.py',
    '_base_/schedules/voc_120k.py',
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

# 160k iterations at 1e-3, 40k at 1e-4, 40k at 1e-5.
train_cfg = dict(max_iters=240000)
param_scheduler = [
    # Not in the paper: without it the first steps of new layers on a trained backbone may diverge.
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=False, milestones=[160000, 200000], gamma=0.1),
]
