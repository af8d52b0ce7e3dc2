# SSD300 on ResNet-50 as in NVIDIA's SSD300 v1.1 (DeepLearningExamples, PyTorch/Detection/SSD): the
# backbone ends with conv4, whose stride is 1, so that its map is 38 x 38; five levels follow, with
# batch normalisation.
_base_ = 'ssd300_vgg16.py'

channels = (1024, 512, 512, 256, 256, 256)
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        num_stages=3,
        strides=(1, 2, 1),
        dilations=(1, 1, 1),
        out_indices=(2,),
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50.imagenet1k_v2'),
    ),
    neck=dict(
        in_channels=(1024,),
        out_channels=channels,
        level_strides=(2, 2, 2, 1, 1),
        level_paddings=(1, 1, 1, 0, 0),
        l2_norm_scale=None,
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(in_channels=channels),
)
