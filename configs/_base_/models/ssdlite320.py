# SSDLite at 320 x 320 on a backbone's maps at strides 8, 16 and 32. The first level, which SSDLite
# as published has not, sees objects of 20 pixels. Its configs add the backbone and the channels.
act_cfg = dict(type='ReLU6')
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='SSDDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        non_blocking=True,
    ),
    neck=dict(
        type='SSDNeck',
        level_strides=(2, 2, 2),
        level_paddings=(1, 1, 1),
        l2_norm_scale=None,  # the maps come from batch normalisation
        use_depthwise=True,
        norm_cfg=dict(type='BN'),
        act_cfg=act_cfg,
    ),
    bbox_head=dict(
        type='SSDMultiBoxHead',
        num_classes=80,
        anchor_generator=dict(
            type='SSDPriorGenerator',
            input_size=320,
            strides=[8, 16, 32, 64, 107, 160],
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3], [2, 3]],
            min_sizes=[20, 48, 100, 150, 202, 253],
            max_sizes=[48, 100, 150, 202, 253, 304],
        ),
        use_depthwise=True,
        # As in the SSDLite of MMDetection and of torchvision.
        norm_cfg=dict(type='BN', eps=0.001, momentum=0.03),
        act_cfg=act_cfg,
    ),
    train_cfg=dict(assigner=dict(type='BatchMaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5)),
    test_cfg=dict(
        nms_pre=400,
        score_thr=0.01,
        nms=dict(type='nms', iou_threshold=0.45),
        max_per_img=200,
    ),
)
