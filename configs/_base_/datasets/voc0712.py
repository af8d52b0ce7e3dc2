# VOC2007 and VOC2012 trainval for training, VOC2007 test for evaluation, at 300 x 300.
dataset_type = 'CheckedVOCDataset'
data_root = 'data/VOCdevkit/'
prepare_data = 'python tools/prepare_data.py voc data'
input_size = 300

# Parts of the pipelines. A config that changes some, as in `_base_.augment.update(...)`, puts the
# pipeline together again and hands it to the data sets.
load = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='TrainOnDifficult'),
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
        # 'instances' is for CocoMetric, should it evaluate: docs/evaluation.md.
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances'),
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
        type='ConcatDataset',
        # The two years differ in it, and ConcatDataset wants equal meta information.
        ignore_keys=['dataset_type'],
        datasets=[
            dict(
                type=dataset_type,
                data_root=data_root,
                ann_file=f'{year}/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root=f'{year}/'),
                filter_cfg=dict(filter_empty_gt=True),
                pipeline=train_pipeline,
            )
            for year in ('VOC2007', 'VOC2012')
        ],
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
        ann_file='VOC2007/ImageSets/Main/test.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

# "Difficult" objects count neither as found nor as missed.
val_evaluator = dict(type='VOCDetMetric', eval_mode='11points')
test_evaluator = val_evaluator
