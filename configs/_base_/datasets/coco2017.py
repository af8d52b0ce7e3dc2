# COCO 2017, at 300 x 300.
dataset_type = 'CheckedCocoDataset'
data_root = 'data/coco/'
prepare_data = 'python tools/prepare_data.py coco data/coco'
input_size = 300

# Parts of the pipelines. A config that changes some, as in `_base_.augment.update(...)`, puts the
# pipeline together again and hands it to the data sets.
load = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
]
augment = dict(type='SSDAugment', scale=(input_size, input_size))
pack = dict(type='PackDetInputs')
train_pipeline = [*load, augment, pack]

test_load = dict(type='LoadImageFromFile')
test_resize = dict(type='Resize', scale=(input_size, input_size), keep_ratio=False)
test_pack = [
    # After Resize: evaluation is in pixels of the original image.
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
test_pipeline = [test_load, test_resize, *test_pack]

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    # One tensor a batch, stacked by a worker: all images have the input's size.
    collate_fn=dict(type='detection_collate'),
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
# No `collate_fn` here: DetInferencer, which reads the test's, takes no dict.
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric', ann_file=data_root + 'annotations/instances_val2017.json', metric='bbox'
)
test_evaluator = val_evaluator
