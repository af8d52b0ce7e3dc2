# SSD300 of the paper (arXiv:1512.02325) on VGG-16, for VOC.
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='SSDDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[1, 1, 1],
        bgr_to_rgb=True,
        non_blocking=True,
    ),
    backbone=dict(
        type='SSDVGG',
        depth=16,
        out_feature_indices=(22, 34),  # conv4_3 and fc7
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://vgg16_caffe'),
    ),
    neck=dict(
        type='SSDNeck',
        in_channels=(512, 1024),
        out_channels=(512, 1024, 512, 256, 256, 256),
        level_strides=(2, 2, 1, 1),
        level_paddings=(1, 1, 0, 0),
        l2_norm_scale=20,
    ),
    bbox_head=dict(
        type='SSDMultiBoxHead',
        num_classes=20,
        in_channels=(512, 1024, 512, 256, 256, 256),
        anchor_generator=dict(
            type='SSDPriorGenerator',
            input_size=300,
            strides=[8, 16, 32, 64, 100, 300],
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
            min_sizes=[30, 60, 111, 162, 213, 264],
            max_sizes=[60, 111, 162, 213, 264, 315],
        ),
        loss_cls=dict(type='HardNegativeMiningLoss', neg_pos_ratio=3),
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0),
    ),
    train_cfg=dict(
        assigner=dict(type='BatchMaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5),
    ),
    test_cfg=dict(
        nms_pre=400,
        score_thr=0.01,
        nms=dict(type='nms', iou_threshold=0.45),
        max_per_img=200,
    ),
)
