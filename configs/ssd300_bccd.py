# SSD300-VGG on BCCD, blood cells (github.com/Shenggan/BCCD_Dataset): a VOC-style folder with
# classes of its own. Put its folders into data/bccd, and VGG-16's convolutions, under
# torchvision's names and for images with std 1, into data/vgg16_features.pth.
_base_ = 'ssd300_voc.py'
prepare_data = 'git clone https://github.com/Shenggan/BCCD_Dataset; mv BCCD_Dataset/BCCD data/bccd'
max_epochs = 24

model = dict(
    # fc6 and fc7 are not in that file, and start from PyTorch's small weights: from Xavier's, the
    # first loss is nearly three times as high.
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='data/vgg16_features.pth')),
    bbox_head=dict(num_classes=3),
)

bccd = dict(
    data_root='data/bccd/',
    data_prefix=dict(sub_data_root=''),
    metainfo=dict(classes=('RBC', 'WBC', 'Platelets')),
)
# Cells of a kind have much the same size in all images: less zoom than for VOC, out and in.
_base_.augment.update(ratio_range=(1, 2), min_crop_size=0.5)
train_pipeline = [*_base_.load, _base_.augment, _base_.pack]
train_dataloader = dict(
    batch_size=8,
    sampler=dict(type='DefaultSampler'),
    dataset=dict(
        _delete_=True,
        type='CheckedVOCDataset',
        ann_file='ImageSets/Main/trainval.txt',
        pipeline=train_pipeline,
        **bccd,
    ),
)
val_dataloader = dict(dataset=dict(ann_file='ImageSets/Main/test.txt', **bccd))
test_dataloader = val_dataloader

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=2)
# VOC's SGD at 1e-3 fails with batches of 8 (docs/results.md): the gradient of the head on fc7 is
# some thousand times that of the last levels. What is trained already gets smaller steps.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='MergingOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.01),
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.2),
            'features.31': dict(lr_mult=1),  # fc6
            'features.33': dict(lr_mult=1),  # fc7
        }
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', end=max_epochs, T_max=max_epochs, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1), logger=dict(interval=10))
log_processor = dict(by_epoch=True)
auto_scale_lr = dict(base_batch_size=8)
