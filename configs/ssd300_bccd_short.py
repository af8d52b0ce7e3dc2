# BCCD on a schedule too short and too gentle to finish: for comparing implementations.
_base_ = 'ssd300_bccd.py'

train_cfg = dict(max_epochs=16)
optim_wrapper = dict(optimizer=dict(lr=2.5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', by_epoch=True, milestones=[11, 14], gamma=0.1),
]
