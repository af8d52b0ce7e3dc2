# SSD FPNLite at 320 x 320: five levels from a depthwise FPN, and four depthwise separable
# convolutions before each prediction, as in "SSD MobileNet V2 FPNLite" of TensorFlow's model zoo.
# Here each level and branch has convolutions of its own, the loss is SSD's and so are the priors,
# which fit_priors.py can then fit. There convolutions are shared and the loss is focal; the priors
# are squares of 4 and 5.7 strides, and as many boxes with an aspect ratio of 2 and of 1/2.
# Its configs add the backbone and the channels of its maps at strides 8, 16 and 32.
_base_ = 'ssdlite320.py'

channels = 128
norm_cfg = dict(type='BN')
model = dict(
    neck=dict(
        _delete_=True,
        type='FPN',
        out_channels=channels,
        num_outs=5,
        add_extra_convs='on_output',
        relu_before_extra_convs=True,
        conv_cfg=dict(type='DepthwiseSeparableConv2d'),
        norm_cfg=norm_cfg,
    ),
    bbox_head=dict(
        in_channels=(channels,) * 5,
        stacked_convs=4,
        feat_channels=channels,
        anchor_generator=dict(
            strides=[8, 16, 32, 64, 107],
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3]],
            min_sizes=[20, 48, 100, 170, 240],
            max_sizes=[48, 100, 170, 240, 310],
        ),
    ),
)
