# VOC2007 and VOC2012 trainval for training, VOC2007 test for evaluation, at 300 x 300.
dataset_type = 'CheckedVOCDataset'
data_root = 'data/VOCdevkit/'
prepare_data = 'python tools/prepare_data.py voc data'
input_size = 300

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='TrainOnDifficult'),
    dict(
        type='SSDAugment',
        scale=(input_size, input_size),
        mean=[123.675, 116.28, 103.53],
        brightness_delta=32,
        contrast_range=(0.5, 1.5),
        saturation_range=(0.5, 1.5),
        hue_delta=18,
        ratio_range=(1, 4),
        min_ious=(0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size=0.3,
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(input_size, input_size), keep_ratio=False),
    # After Resize: evaluation is in pixels of the original image.
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        # 'instances' is for CocoMetric, should it evaluate: docs/evaluation.md.
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances'),
    ),
]

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
