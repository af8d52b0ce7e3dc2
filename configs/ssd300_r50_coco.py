# SSD300 v1.1 of NVIDIA's DeepLearningExamples: ResNet-50, COCO 2017, 65 epochs; its authors report
# 26.9 to 27.1 AP (val2017, 8 GPUs with 32 images each, starting from the same ImageNet weights).
_base_ = [
    '_base_/models/ssd300_r50.py',
    '_base_/datasets/coco2017.py',
    '_base_/schedules/coco_240k.py',
    '_base_/default_runtime.py',
]
max_epochs = 65

model = dict(
    bbox_head=dict(
        num_classes=80,
        anchor_generator=dict(
            min_sizes=[21, 45, 99, 153, 207, 261], max_sizes=[45, 99, 153, 207, 261, 315]
        ),
    )
)

# No expansion there. Its brightness is a factor of 1 +- 0.125, of 1 +- 32/256; here it is a sum.
_base_.augment.update(ratio_range=(1, 1))
train_pipeline = [*_base_.load, _base_.augment, _base_.pack]
train_dataloader = dict(sampler=dict(type='DefaultSampler'), dataset=dict(pipeline=train_pipeline))

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(
    optimizer=dict(lr=2.6e-3),  # for 32 images a step
    paramwise_cfg=dict(_delete_=True, bias_decay_mult=0.0, norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.003, by_epoch=False, begin=0, end=300),
    dict(type='MultiStepLR', by_epoch=True, milestones=[43, 54], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
# Batch normalisation has the same running statistics in all processes.
custom_hooks = [*_base_.custom_hooks, dict(type='NormStatsHook')]
log_processor = dict(by_epoch=True)
