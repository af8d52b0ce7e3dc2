# The paper's schedule for VOC07+12: 120k iterations of 32 images.
max_iters = 120000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=10000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MergingOptimWrapperConstructor',  # two groups of parameters, not one of each
    optimizer=dict(type='SGD', lr=1e-3, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0),
)
param_scheduler = [
    # Not in the paper: without it the first steps of new layers on a trained backbone may diverge.
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=False, milestones=[80000, 100000], gamma=0.1),
]

# `--auto-scale-lr` turns it on, for another total batch size.
auto_scale_lr = dict(enable=False, base_batch_size=32)

# Own data (`--data-root`) are some hundred images: they get this recipe, in place of the above.
own_data_recipe = 'ssd_plugin::_base_/own_data.py'
