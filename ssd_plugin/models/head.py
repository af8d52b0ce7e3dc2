"""SSD's head: two convolutions a level, the loss of a batch, and its detections."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import InstanceList, OptInstanceList, reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor, nn

from ssd_plugin.models.box_losses import (
    BOX_LOSSES,
    MatchedPriors,
    match_predictions,
    matched_losses,
)
from ssd_plugin.models.branches import make_branch
from ssd_plugin.models.devices import values_are_free
from ssd_plugin.models.ground_truth import batch_ground_truth, batch_ignored, send
from ssd_plugin.models.labels import check_labels
from ssd_plugin.models.level_maps import flatten_levels, stack_levels
from ssd_plugin.models.logits import detect_from_logits
from ssd_plugin.models.losses import batch_loss, learns_quality
from ssd_plugin.models.offsets import decode, encode
from ssd_plugin.models.priors import check_cover

XAVIER = dict(type='Xavier', layer='Conv2d', distribution='uniform', bias=0)
SSD_BBOX_CODER = dict(
    type='DeltaXYWHBBoxCoder',
    target_means=(0.0, 0.0, 0.0, 0.0),
    target_stds=(0.1, 0.1, 0.2, 0.2),
)


@MODELS.register_module()
class SSDMultiBoxHead(BaseDenseHead):
    """Single Shot MultiBox Detector head (arXiv:1512.02325), for MMDetection's detectors.

    Training: priors are matched to objects (``train_cfg.assigner``), classes are learnt by
    ``loss_cls`` with background as the last class, offsets of matched priors by ``loss_bbox``,
    and both sums are divided by the number of matched priors in the batch, over all ranks. A
    batch without objects has a loss of 0. Inference: ``test_cfg``, see
    :func:`ssd_plugin.models.postprocess.detect`.

    Parameters have the names of MMDetection's ``SSDHead``, whose checkpoints load unchanged.

    Args:
        num_classes: Number of foreground classes.
        in_channels: Channels of each level's feature map.
        stacked_convs: 3x3 convolutions in each branch before the last one.
        feat_channels: Their channels.
        use_depthwise: Whether the branches are depthwise separable (SSDLite).
        conv_cfg: Kind of the convolutions before the last one; also ``norm_cfg``, ``act_cfg``.
        norm_cfg: Their normalisation.
        act_cfg: Their activation.
        anchor_generator: Prior generator, such as ``SSDPriorGenerator``.
        bbox_coder: From boxes to offsets and back.
        reg_decoded_bbox: Whether ``loss_bbox`` compares boxes in pixels rather than offsets; IoU
            losses need it.
        loss_cls: Classification loss, mined or not; sigmoid losses do without the background
            score. ``docs/losses.md`` tells which losses fit.
        loss_bbox: Regression loss.
        train_cfg: ``assigner``, one with ``assign_batch`` such as ``BatchMaxIoUAssigner``.
        test_cfg: ``nms_pre``, ``score_thr``, ``nms``, ``max_per_img``.
        init_cfg: Initialisation.

    Raises:
        TypeError: If the assigner can't match a batch.
        ValueError: If an IoU loss is given offsets to compare.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        anchor_generator: dict,
        stacked_convs: int = 0,
        feat_channels: int = 256,
        use_depthwise: bool = False,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        bbox_coder: dict = SSD_BBOX_CODER,
        reg_decoded_bbox: bool = False,
        loss_cls: dict | None = None,
        loss_bbox: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = XAVIER,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.loss_cls = MODELS.build(loss_cls or dict(type='HardNegativeMiningLoss'))
        self.loss_bbox = MODELS.build(loss_bbox or dict(type='SmoothL1Loss', beta=1.0))
        self.num_classes = num_classes
        self.use_sigmoid_cls = getattr(self.loss_cls, 'use_sigmoid', False)
        self.cls_out_channels = num_classes + (not self.use_sigmoid_cls)
        self.reg_decoded_bbox = reg_decoded_bbox
        if isinstance(self.loss_bbox, BOX_LOSSES) and not reg_decoded_bbox:
            raise ValueError(
                f'SSDMultiBoxHead: {type(self.loss_bbox).__name__} compares boxes and not offsets, '
                'it needs reg_decoded_bbox=True'
            )
        self.bbox_coder = TASK_UTILS.build(bbox_coder)
        self.prior_generator = TASK_UTILS.build(anchor_generator)
        self._levels = self._priors = None  # of the last call
        self.train_cfg, self.test_cfg = train_cfg, test_cfg
        if train_cfg:
            self.assigner = TASK_UTILS.build(train_cfg['assigner'])
            if not hasattr(self.assigner, 'assign_batch'):
                raise TypeError(
                    f'SSDMultiBoxHead matches whole batches: {type(self.assigner).__name__} has '
                    'no assign_batch, use BatchMaxIoUAssigner in train_cfg.assigner'
                )

        layers = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.cls_convs, self.reg_convs = nn.ModuleList(), nn.ModuleList()
        for channels, num_priors in zip(
            in_channels, self.prior_generator.num_base_priors, strict=True
        ):
            for branch, outputs in (
                (self.cls_convs, num_priors * self.cls_out_channels),
                (self.reg_convs, num_priors * 4),
            ):
                branch.append(
                    make_branch(
                        channels, outputs, stacked_convs, feat_channels, use_depthwise, layers
                    )
                )

    def forward(self, feats: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Scores and offsets of each level.

        Args:
            feats: Feature maps (B, in_channels_k, H_k, W_k).

        Returns:
            Scores (B, A_k * K, H_k, W_k) and offsets (B, A_k * 4, H_k, W_k), for each level.
        """
        cls_scores = [conv(feat) for conv, feat in zip(self.cls_convs, feats, strict=True)]
        bbox_preds = [conv(feat) for conv, feat in zip(self.reg_convs, feats, strict=True)]
        return cls_scores, bbox_preds

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> dict[str, Tensor]:
        """The loss of a batch (paper, section 2.2, formulas 1 to 3).

        Args:
            cls_scores: From :meth:`forward`.
            bbox_preds: From :meth:`forward`.
            batch_gt_instances: ``bboxes`` (n, 4) in pixels and ``labels`` (n,) of each image, on
                the host or on the maps' device.
            batch_img_metas: ``img_shape`` of each image.
            batch_gt_instances_ignore: ``bboxes`` (n, 4) of each image's ignored objects.

        Returns:
            Scalars ``loss_cls`` and ``loss_bbox``.

        Raises:
            DataRefusedError: On a CPU, if a label is not 0 to ``num_classes`` - 1.
        """
        priors = self.get_priors(cls_scores, batch_img_metas)  # (P, 4)
        if values_are_free(priors):  # elsewhere DataFaultHook has looked, before the copy
            images = [meta.get('img_path', f'image {i}') for i, meta in enumerate(batch_img_metas)]
            check_labels([i.labels for i in batch_gt_instances], self.num_classes, images)
        gt = batch_ground_truth(batch_gt_instances, batch_img_metas, priors.device)
        ignored = None
        # Padding them is work for nothing where the assigner says that it leaves none out.
        if getattr(self.assigner, 'ignore_iof_thr', 0) >= 0:
            ignored = batch_ignored(batch_gt_instances_ignore, priors.device)
        matches = self.assigner.assign_batch(priors, *gt, ignored)

        positive = matches.gt_inds > 0  # (B, P)
        num_matched = reduce_mean(positive.sum().float())
        # The mean over ranks may be less than 1, but not less than one prior on one of them.
        avg_factor = num_matched.clamp(min=1 / get_world_size())

        labels = torch.where(positive, matches.labels, self.num_classes)
        weights = (matches.gt_inds >= 0).float()
        matched = match_predictions(bbox_preds, priors, gt.bboxes, matches.gt_inds)
        quality = self.quality(matched, labels) if learns_quality(self.loss_cls) else None
        return dict(
            loss_cls=batch_loss(
                self.loss_cls,
                cls_scores,
                self.cls_out_channels,
                labels,
                weights,
                avg_factor,
                quality,
            ),
            loss_bbox=self.regression_loss(matched, avg_factor),
        )

    def regression_loss(self, matched: MatchedPriors, avg_factor: Tensor) -> Tensor:
        """``loss_bbox`` of the matched priors: a scalar, their sum divided by ``avg_factor``."""
        if len(matched.offsets) == 0:  # for which IoU losses answer a constant, without gradient
            return matched.offsets.sum()
        if self.reg_decoded_bbox:
            preds = decode(self.bbox_coder, matched.priors, matched.offsets)
            targets = matched.bboxes
        else:
            preds = matched.offsets
            targets = encode(self.bbox_coder, matched.priors, matched.bboxes)
        losses = matched_losses(self.loss_bbox, preds, targets)
        return torch.where(matched.positive, losses, 0).sum() / avg_factor

    @torch.no_grad()
    def quality(self, matched: MatchedPriors, labels: Tensor) -> Tensor:
        """IoU of each matched prior's predicted box with its object, (B, P)."""
        preds = decode(self.bbox_coder, matched.priors, matched.offsets)
        ious = bbox_overlaps(preds, matched.bboxes, is_aligned=True)
        return ious.new_zeros(labels.numel()).index_copy(0, matched.index, ious).view_as(labels)

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_img_metas: list[dict],
        cfg: dict | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> InstanceList:
        """Detections of a batch.

        Args:
            cls_scores: From :meth:`forward`.
            bbox_preds: From :meth:`forward`.
            batch_img_metas: ``img_shape`` and, for ``rescale``, ``scale_factor`` of each image.
            cfg: Used in place of ``test_cfg``.
            rescale: Whether boxes are in pixels of the original image, not of the input.
            with_nms: Whether to do NMS and to limit the number.

        Returns:
            For each image ``bboxes`` (n, 4), ``scores`` (n,) and ``labels`` (n,), by score.
        """
        cfg = self.test_cfg if cfg is None else cfg
        priors = self.get_priors(cls_scores, batch_img_metas)
        preds = flatten_levels(bbox_preds, 4)
        # (B, 4): right, bottom, right, bottom.
        borders = torch.tensor([m['img_shape'][:2][::-1] * 2 for m in batch_img_metas])
        borders = send(borders.to(preds.dtype), preds.device)
        scales = None
        if rescale:
            scales = torch.tensor([tuple(m['scale_factor']) * 2 for m in batch_img_metas])
            scales = send(scales.to(preds.dtype), preds.device)

        def boxes_of(image: Tensor, prior: Tensor) -> Tensor:
            bboxes = decode(self.bbox_coder, priors[prior], preds[image, prior])
            if getattr(self.bbox_coder, 'clip_border', True):
                bboxes = bboxes.clamp(min=0).minimum(borders[image])
            return bboxes if scales is None else bboxes / scales[image]

        logits = stack_levels(cls_scores, self.cls_out_channels)
        return detect_from_logits(logits, self.use_sigmoid_cls, boxes_of, cfg, with_nms)

    def get_priors(
        self, cls_scores: Sequence[Tensor], batch_img_metas: Sequence[dict] | None = None
    ) -> Tensor:
        """Priors of all levels.

        Args:
            cls_scores: From :meth:`forward`.
            batch_img_metas: ``batch_input_shape`` of the images, (h, w) in pixels, where known.

        Returns:
            (P, 4) xyxy in pixels, on the scores' device.

        Raises:
            ValueError: If the priors of a level don't cover the network input, where its size is
                known from ``batch_img_metas``.
        """
        sizes = [tuple(scores.shape[-2:]) for scores in cls_scores]
        # MMDetection's data preprocessor tells it; who calls the head by hand may not.
        input_shape = batch_img_metas[0].get('batch_input_shape') if batch_img_metas else None
        if input_shape is not None:
            check_cover(sizes, self.prior_generator.strides, input_shape)
        levels = self.prior_generator.grid_priors(sizes, device=cls_scores[0].device)
        if levels is not self._levels:  # SSDPriorGenerator answers the same list for the same shape
            self._levels, self._priors = levels, torch.cat(levels)
        return self._priors
