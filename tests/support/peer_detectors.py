"""What a user would train in place of ours: MMDetection's SSD head, and torchvision's SSD.

`with_detector` changes a config of ours: images, augmentation, normalisation, backbone, neck,
optimizer and schedule stay, and so do the priors, as far as the other can have them.
"""

from collections import OrderedDict
from functools import partial

from mmdet.models.dense_heads import SSDHead
from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn
from torchvision.models.detection import ssd
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssdlite import SSDLiteHead

DETECTORS = ('ours', 'mmdet', 'torchvision')
# Of a depthwise head, in MMDetection's ssdlite config and in torchvision's ssdlite320 alike.
LIGHT_NORM = dict(eps=0.001, momentum=0.03)


def with_detector(cfg, name):
    """Put one of `DETECTORS` into a config whose head is `SSDMultiBoxHead`, in place."""
    if name == 'ours':
        return
    if cfg.model.bbox_head.get('stacked_convs'):
        raise ValueError("torchvision's SSD has no convolutions before the last of each branch")
    cfg.model.data_preprocessor.type = 'DetDataPreprocessor'  # annotations go to the device
    (use_mmdet if name == 'mmdet' else use_torchvision)(cfg.model)


# --- MMDetection ---------------------------------------------------------------------------------


@MODELS.register_module()
class MendedSSDHead(SSDHead):
    """MMDetection's `SSDHead`, with the one attribute that its prediction misses.

    `BaseDenseHead` asks ``self.loss_cls`` whether it has an activation of its own. `SSDHead` calls
    a function for its loss and has no such attribute, so that each prediction is an error.
    """

    loss_cls = None


def use_mmdet(model):
    """The head, assigner and limits of MMDetection's ``ssdlite_mobilenetv2-scratch`` config.

    Its `SSDAnchorGenerator` has the same priors as ours when it is given ``min_sizes``; only sizes
    from its ``basesize_ratio_range`` are truncated.

    Nothing else has to be mended: of a box without area, whose log of sides would make its loss
    infinite, `--data-root` has left the data free, for all. What else differs from ours: an image
    without matched priors counts in the number N of them as if it had one.
    """
    old = model.bbox_head
    priors = TASK_UTILS.build(old.anchor_generator)
    head = dict(
        type='MendedSSDHead',
        num_classes=old.num_classes,
        in_channels=old.in_channels,
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            strides=priors.strides,
            ratios=priors.ratios,
            min_sizes=priors.min_sizes,
            max_sizes=priors.max_sizes,
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
    )
    if old.get('use_depthwise'):
        head.update(
            use_depthwise=True,
            norm_cfg=dict(type='BN', **LIGHT_NORM),
            act_cfg=dict(type='ReLU6'),
            init_cfg=dict(type='Normal', layer='Conv2d', std=0.001),
        )
    model.bbox_head = ConfigDict(head)
    model.train_cfg = ConfigDict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0,
                      ignore_iof_thr=-1, gt_max_assign_all=False),
        sampler=dict(type='PseudoSampler'),
        smoothl1_beta=1.0, allowed_border=-1, pos_weight=-1, neg_pos_ratio=3, debug=False,
    )  # fmt: skip
    # Its limit is one of a level, over all classes; ours one of a class, over all levels.
    model.test_cfg = ConfigDict(model.test_cfg, nms_pre=1000, min_bbox_size=0)


# --- torchvision ---------------------------------------------------------------------------------


def use_torchvision(model):
    """`TorchvisionSSD` with the backbone, the neck, the limits and the priors of a model of ours.

    Of the priors, it has all but those whose ``max_size`` is not the next level's ``min_size``,
    and it clips widths and heights to the input's, as is its default.
    """
    old = model.bbox_head
    priors = TASK_UTILS.build(old.anchor_generator)
    width, height = priors.input_size
    if width != height:
        raise ValueError("torchvision's priors are for square inputs")
    model.update(
        type='TorchvisionSSD',
        num_classes=old.num_classes,
        in_channels=old.in_channels,
        use_depthwise=old.get('use_depthwise', False),
        priors=dict(
            aspect_ratios=priors.ratios,
            scales=[size / width for size in (*priors.min_sizes, priors.max_sizes[-1])],
            steps=[stride[0] for stride in priors.strides],
        ),
    )
    for key in ('bbox_head', 'train_cfg'):
        del model[key]


@MODELS.register_module()
class TorchvisionSSD(BaseDetector):
    """torchvision's `SSD` on a backbone and a neck of MMDetection's, for MMEngine's runner.

    Head, priors, matching, loss and detections are torchvision's: its ``forward`` runs as it is,
    on images that have been resized and normalised. Its labels begin at 1.

    Args:
        priors: Arguments of torchvision's `DefaultBoxGenerator`.
        use_depthwise: SSDLite's head, as ``ssdlite320_mobilenet_v3_large`` has it, or SSD's.
        test_cfg: ``nms_pre``, ``score_thr``, ``nms`` and ``max_per_img``, as of ours.
    """

    def __init__(self, backbone, num_classes, in_channels, priors, test_cfg, neck=None,
                 use_depthwise=False, data_preprocessor=None, init_cfg=None):  # fmt: skip
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck) if neck else None
        generator = DefaultBoxGenerator(**priors)
        per_cell = generator.num_anchors_per_location()
        make_head = ssd.SSDHead
        if use_depthwise:
            make_head = partial(SSDLiteHead, norm_layer=partial(nn.BatchNorm2d, **LIGHT_NORM))
        self.ssd = ssd.SSD(
            self.feature_maps,  # no module, so that parameters keep the names of ours
            generator,
            size=(1, 1),  # of its transform, which is replaced
            num_classes=num_classes + 1,
            head=make_head(list(in_channels), per_cell, num_classes + 1),
            score_thresh=test_cfg['score_thr'],
            nms_thresh=test_cfg['nms']['iou_threshold'],
            detections_per_img=test_cfg['max_per_img'],
            topk_candidates=test_cfg['nms_pre'],
        )
        self.ssd.transform = GivenBatch()

    def extract_feat(self, batch_inputs):
        """Feature maps (B, in_channels_k, H_k, W_k) of images (B, 3, H, W)."""
        feats = self.backbone(batch_inputs)
        return feats if self.neck is None else self.neck(feats)

    def feature_maps(self, batch_inputs):
        """The same for torchvision, in float32: its priors get the precision of the maps."""
        feats = self.extract_feat(batch_inputs)
        return OrderedDict((str(k), feat.float()) for k, feat in enumerate(feats))

    def loss(self, batch_inputs, batch_data_samples):
        """torchvision's two losses, by MMDetection's names."""
        truth = [sample.gt_instances for sample in batch_data_samples]
        targets = [dict(boxes=get_box_tensor(t.bboxes), labels=t.labels + 1) for t in truth]
        losses = self.ssd(batch_inputs, targets)
        return dict(loss_cls=losses['classification'], loss_bbox=losses['bbox_regression'])

    def predict(self, batch_inputs, batch_data_samples, rescale=True):
        """Detections, added to the samples; in pixels of the original images if ``rescale``."""
        results = []
        for found, sample in zip(self.ssd(batch_inputs), batch_data_samples):
            scale = found['boxes'].new_tensor(sample.scale_factor * 2 if rescale else (1,))
            results.append(InstanceData(
                bboxes=found['boxes'] / scale, scores=found['scores'], labels=found['labels'] - 1
            ))  # fmt: skip
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(self, batch_inputs, batch_data_samples=None):
        """Deltas (B, P, 4) and scores (B, P, K)."""
        return tuple(self.ssd.head(list(self.feature_maps(batch_inputs).values())).values())


class GivenBatch(nn.Module):
    """Takes the place of torchvision's transform: images are as the network takes them."""

    def forward(self, images, targets=None):
        sizes = [tuple(images.shape[-2:])] * len(images)
        return ImageList(images, sizes), targets

    def postprocess(self, detections, image_sizes, original_sizes):
        return detections
