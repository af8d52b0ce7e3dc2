# RetinaNet-R50 on VOC07+12 with SSD's loss and matching in place of its own, at SSD300's input;
# docs/losses.md, "In other heads". Its accuracy has not been measured.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '_base_/datasets/voc0712.py',
    '_base_/schedules/voc_120k.py',
    '_base_/default_runtime.py',
]

model = dict(
    bbox_head=dict(
        num_classes=20,
        # One score for background, in place of focal loss's sigmoids without.
        loss_cls=dict(_delete_=True, type='HardNegativeMiningLoss', neg_pos_ratio=3),
    ),
    train_cfg=dict(
        # RetinaNet's thresholds: priors with an IoU from 0.4 to 0.5 teach nothing.
        assigner=dict(_delete_=True, type='BatchMaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4)
    ),
)

# MMDetection's rate and batch for RetinaNet on VOC, for 24 passes in place of its 12, since
# SSD's augmentation repeats little.
max_iters = 25000
train_dataloader = dict(batch_size=16)
train_cfg = dict(max_iters=max_iters, val_interval=5000)
optim_wrapper = dict(
    optimizer=dict(lr=0.01, weight_decay=1e-4),
    paramwise_cfg=dict(bias_lr_mult=1.0, bias_decay_mult=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=False, milestones=[17000, 23000], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=16)
