# How to train on own data, some hundred to some thousand images, from ImageNet's weights: what the
# light configs have, and what `--data-root` gives to those of VOC and COCO in place of their own.
# docs/results.md tells what was tried. `--data-root DIR` fills in the folder's data and classes.
_base_ = 'default_runtime.py'
data_root = 'data/own/'
prepare_data = 'python tools/train.py CONFIG --data-root FOLDER'  # is said where there are none
input_size = 320
max_epochs = 100  # with `--data-root` fewer, for more than 120 images: docs/your_data.md

# Parts of the pipelines. A config that changes some, as in `_base_.augment.update(...)`, puts the
# pipeline together again and hands it to the data sets.
load = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
]
augment = dict(
    type='SSDAugment', scale=(input_size, input_size), ratio_range=(1, 2), min_crop_size=0.5
)
pack = dict(type='PackDetInputs')
train_pipeline = [*load, augment, pack]

test_load = dict(type='LoadImageFromFile')
test_resize = dict(type='Resize', scale=(input_size, input_size), keep_ratio=False)
test_pack = [
    # After Resize: evaluation is in pixels of the original image.
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        # 'instances' is for CocoMetric, should it evaluate: docs/evaluation.md.
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances'),
    ),
]
test_pipeline = [test_load, test_resize, *test_pack]

dataset = dict(type='CheckedCocoDataset', data_root=data_root, data_prefix=dict(img=''))
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    # One tensor a batch, stacked by a worker: all images have the input's size.
    collate_fn=dict(type='detection_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='train.json', pipeline=train_pipeline, **dataset),
)
# No `collate_fn` here: DetInferencer, which reads the test's, takes no dict.
val_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='val.json', test_mode=True, pipeline=test_pipeline, **dataset),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='VOCDetMetric', eval_mode='area')
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MergingOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0,
        bias_decay_mult=0,
        # It is trained already. MMEngine decays all parameters of a custom key, norms included.
        custom_keys={
            'backbone': dict(lr_mult=0.2),
            # SSDVGG's fc6 and fc7 are new.
            'features.31': dict(lr_mult=1),
            'features.33': dict(lr_mult=1),
        },
    ),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', end=max_epochs, T_max=max_epochs, convert_to_iter_based=True),
]
default_hooks = dict(
    checkpoint=dict(by_epoch=True, interval=10, max_keep_ckpts=2), logger=dict(interval=10)
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='ChannelsLastHook'),
    # Batch normalisation has the same running statistics in all processes.
    dict(type='NormStatsHook'),
]
log_processor = dict(by_epoch=True)
auto_scale_lr = dict(base_batch_size=16)
