# SSD512 of the paper (arXiv:1512.02325) on VGG-16, for VOC: SSD300 with one more level.
_base_ = 'ssd300_vgg16.py'

channels = (512, 1024, 512, 256, 256, 256, 256)
model = dict(
    neck=dict(
        out_channels=channels,
        level_strides=(2, 2, 2, 2, 1),
        level_paddings=(1, 1, 1, 1, 1),
        last_kernel_size=4,
    ),
    bbox_head=dict(
        in_channels=channels,
        anchor_generator=dict(
            input_size=512,
            strides=[8, 16, 32, 64, 128, 256, 512],
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
            # 7 % of 512, then 15 % to 90 % in equal steps.
            min_sizes=[35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8],
            max_sizes=[76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6],
        ),
    ),
)
