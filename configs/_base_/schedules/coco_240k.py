# The paper's schedule for COCO (section 3.4): 160k iterations at 1e-3, 40k at 1e-4, 40k at 1e-5.
_base_ = 'voc_120k.py'
max_iters = 240000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    # Not in the paper: without it the first steps of new layers on a trained backbone may diverge.
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=False, milestones=[160000, 200000], gamma=0.1),
]
