# SSD300-VGG on BCCD, blood cells (github.com/Shenggan/BCCD_Dataset): a VOC-style folder with
# classes of its own. Put its folders into data/bccd, and VGG-16's convolutions, under
# torchvision's names and for pictures with std 1, into data/vgg16_features.pth.
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
train_dataloader = dict(
    batch_size=8,
    sampler=dict(type='DefaultSampler'),
    dataset=dict(
        _delete_=True,
        type='CheckedVOCDataset',
        ann_file='ImageSets/Main/trainval.txt',
        pipeline={{_base_.train_pipeline}},
        **bccd,
    ),
)
val_dataloader = dict(dataset=dict(ann_file='ImageSets/Main/test.txt', **bccd))
test_dataloader = val_dataloader

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', by_epoch=True, milestones=[18, 22], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1), logger=dict(interval=10))
log_processor = dict(by_epoch=True)
