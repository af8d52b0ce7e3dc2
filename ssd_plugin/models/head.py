"""SSD's head: two branches of convolutions a level, the loss of a batch, and its detections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import InstanceList, OptInstanceList
from mmengine.model import bias_init_with_prob, normal_init, xavier_init
from torch import Tensor, nn

from ssd_plugin.models.box_losses import BoxRegressionLoss
from ssd_plugin.models.boxes import iou, without_synchronisation
from ssd_plugin.models.losses import make_batch_loss
from ssd_plugin.models.postprocess import check_nms, detect
from ssd_plugin.models.priors import check_cover
from ssd_plugin.models.targets import Targets, build_assigner, get_targets, send

SSD_BBOX_CODER = dict(type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2))


@MODELS.register_module()
class SSDMultiBoxHead(BaseDenseHead):
    """Single Shot MultiBox Detector head (arXiv:1512.02325), for MMDetection's detectors.

    Training: priors are matched to ground-truth boxes (``train_cfg.assigner``); ``loss_cls``
    learns the classes, with background as the last one, and ``loss_bbox`` the deltas of the
    matched priors. Both sums are divided by the number of matched priors in the batch, over all
    ranks. A batch without ground-truth boxes has a loss of 0, unless the loss has
    ``min_negatives``. Inference: ``test_cfg``, see :func:`ssd_plugin.models.postprocess.detect`.

    Parameters have the names of MMDetection's ``SSDHead``, whose checkpoints load unchanged.

    Args:
        num_classes: Number of foreground classes. Labels must be 0 to ``num_classes`` - 1;
            ``DataFaultHook`` checks those of a training run.
        in_channels: Channels of each level's feature map.
        anchor_generator: Prior generator, such as ``SSDPriorGenerator``.
        stacked_convs: 3x3 convolutions in each branch before the last one.
        feat_channels: Their channels.
        use_depthwise: Whether the branches are depthwise separable (SSDLite).
        conv_cfg: Kind of the convolutions before the last one; likewise ``norm_cfg``, ``act_cfg``.
        bbox_coder: Encodes boxes as deltas and decodes them.
        reg_decoded_bbox: Whether ``loss_bbox`` compares boxes in pixels rather than deltas; IoU
            losses need it.
        loss_cls: Classification loss, mined or not; sigmoid losses do without the background
            score. ``docs/losses.md`` tells which losses fit.
        loss_bbox: Regression loss.
        train_cfg: ``assigner``, one with ``assign_batch`` such as ``BatchMaxIoUAssigner``.
        test_cfg: ``nms_pre``, ``score_thr``, ``nms``, ``max_per_img``.
        init_cfg: Initialisation in place of that of :meth:`init_weights`.

    Raises:
        TypeError: If the assigner cannot match a batch.
        ValueError: If an IoU loss is given deltas to compare, ``test_cfg`` does not say which NMS
            to do, or ``train_cfg`` has what belongs elsewhere.
    """

    elsewhere = dict(  # of MMDetection's `train_cfg`: where it belongs here
        neg_pos_ratio='bbox_head.loss_cls.neg_pos_ratio',
        smoothl1_beta='bbox_head.loss_bbox.beta',
        isr="bbox_head.type='PISASSDMultiBoxHead'",
        carl="bbox_head.type='PISASSDMultiBoxHead'",
    )

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
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_classes = num_classes
        self.prior_generator = TASK_UTILS.build(anchor_generator)
        self.bbox_coder = TASK_UTILS.build(bbox_coder)
        self.sync_free_coder = without_synchronisation(self.bbox_coder)
        self.clip_border = getattr(self.bbox_coder, 'clip_border', True)

        self.loss_cls = MODELS.build(loss_cls or dict(type='HardNegativeMiningLoss'))
        self.batch_cls_loss = make_batch_loss(self.loss_cls)
        self.use_sigmoid_cls = getattr(self.loss_cls, 'use_sigmoid', False)
        self.cls_out_channels = num_classes + (not self.use_sigmoid_cls)
        self.loss_bbox = MODELS.build(loss_bbox or dict(type='SmoothL1Loss', beta=1.0))
        self.per_prior_box_loss = BoxRegressionLoss(
            self.loss_bbox, self.sync_free_coder, reg_decoded_bbox
        )

        self.train_cfg, self.test_cfg = train_cfg, test_cfg or {}
        if train_cfg:
            self.assigner = build_assigner(train_cfg, self.elsewhere)
        if test_cfg:
            check_nms(test_cfg)

        layers = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        hidden = [feat_channels] * stacked_convs
        per_cell = self.prior_generator.num_base_priors
        if len(in_channels) != len(per_cell):
            counts = f'in_channels has {len(in_channels)}, anchor_generator {len(per_cell)}'
            raise ValueError(f'SSDMultiBoxHead: the numbers of levels differ: {counts}')
        self.cls_convs, self.reg_convs = (
            nn.ModuleList(
                make_branch([channels, *hidden], outputs * number, use_depthwise, layers)
                for channels, number in zip(in_channels, per_cell)
            )
            for outputs in (self.cls_out_channels, 4)
        )

    def init_weights(self) -> None:
        """Initialise by ``init_cfg``; without it, by Xavier's rule, with outputs near 0.

        The first loss is then that of even scores, or of a probability of 0.01 where scores are
        sigmoids (RetinaNet, section 4.1). Scores differ a little, or mining would have no order.
        """
        if self.init_cfg is None and not self.is_init:
            prior = bias_init_with_prob(0.01) if self.use_sigmoid_cls else 0
            for branches, bias in ((self.cls_convs, prior), (self.reg_convs, 0)):
                for branch in branches:
                    init_branch(branch, bias)
        super().init_weights()

    def forward(self, feats: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Scores and deltas of each level.

        Args:
            feats: Feature maps (B, in_channels_k, H_k, W_k).

        Returns:
            Scores (B, A_k * K, H_k, W_k) and deltas (B, A_k * 4, H_k, W_k), for each level.
        """
        feats, num = list(feats), len(self.cls_convs)
        if len(feats) != num:
            counts = f'{len(feats)} feature maps, {num} in_channels, {num} in anchor_generator'
            raise ValueError(f'SSDMultiBoxHead: the numbers of levels differ: {counts}')
        cls_scores = [conv(feat) for conv, feat in zip(self.cls_convs, feats)]
        return cls_scores, [conv(feat) for conv, feat in zip(self.reg_convs, feats)]

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> dict[str, Tensor]:
        """Scalars ``loss_cls`` and ``loss_bbox`` of a batch (paper, section 2.2, formulas 1 to 3).

        Args:
            cls_scores: From :meth:`forward`; also ``bbox_preds``.
            batch_gt_instances: See :func:`~ssd_plugin.models.targets.get_targets`; also the others.
        """
        priors = self.get_priors(cls_scores, batch_img_metas)  # (P, 4)
        ground_truth = batch_gt_instances, batch_img_metas, batch_gt_instances_ignore
        targets = get_targets(priors, self.assigner, self.num_classes, *ground_truth)
        scores = flatten_levels(cls_scores, self.cls_out_channels)  # (B, P, K)
        return self.loss_by_targets(scores, flatten_levels(bbox_preds, 4), priors, targets)

    def loss_by_targets(
        self, scores: Tensor, deltas: Tensor, priors: Tensor, targets: Targets
    ) -> dict[str, Tensor]:
        """The losses of scores (B, P, K) and deltas (B, P, 4)."""
        labels = self.class_targets(deltas, priors, targets)
        loss_cls = self.batch_cls_loss(scores, labels, targets.weights, targets.avg_factor)
        losses = self.per_prior_box_loss(deltas, priors, targets.bboxes, targets.matched)  # (B, P)
        return dict(loss_cls=loss_cls, loss_bbox=losses.sum() / targets.avg_factor)

    def class_targets(
        self, deltas: Tensor, priors: Tensor, targets: Targets
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Labels (B, P) and, for losses that learn it, the quality (B, P) of each prior."""
        if not self.batch_cls_loss.learns_quality:
            return targets.labels
        return targets.labels, self.predicted_ious(deltas, priors, targets)

    @torch.no_grad()
    def predicted_ious(self, deltas: Tensor, priors: Tensor, targets: Targets) -> Tensor:
        """The IoU (B, P) of each prior's predicted box with its target."""
        preds = self.sync_free_coder.decode(priors.repeat(len(deltas), 1), deltas.flatten(0, 1))
        return iou(preds.view_as(deltas), targets.bboxes)

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
            cls_scores: From :meth:`forward`; also ``bbox_preds``.
            batch_img_metas: ``img_shape`` and, for ``rescale``, ``scale_factor`` of each image.
            cfg: Used in place of ``test_cfg``.
            rescale: Whether boxes are in pixels of the original image, not of the input.
            with_nms: Whether to do NMS and to limit the number.

        Returns:
            For each image ``bboxes`` (n, 4), ``scores`` (n,) and ``labels`` (n,), by score.
        """
        priors = self.get_priors(cls_scores, batch_img_metas)
        scores = flatten_levels(cls_scores, self.cls_out_channels)
        deltas = flatten_levels(bbox_preds, 4)
        borders = None
        if self.clip_border:  # (B, 4): width, height, width, height
            borders = torch.tensor([m['img_shape'][:2][::-1] * 2 for m in batch_img_metas])
            borders = send(borders.to(deltas.dtype), deltas.device)
        cfg = self.test_cfg if cfg is None else cfg
        probs = self.probabilities(scores)
        results = detect(probs, deltas, priors, self.sync_free_coder, cfg, borders, with_nms)
        if rescale:
            # One copy to the device for the whole batch.
            scales = torch.tensor([tuple(m['scale_factor']) * 2 for m in batch_img_metas])
            scales = send(scales.to(deltas.dtype), deltas.device)  # (B, 4)
            for result, scale in zip(results, scales, strict=True):
                result.bboxes = result.bboxes / scale
        return results

    def probabilities(self, scores: Tensor) -> Tensor:
        """Probabilities (..., C) of the classes, without background, from scores (..., K)."""
        return scores.sigmoid() if self.use_sigmoid_cls else scores.softmax(-1)[..., :-1]

    def get_priors(
        self, cls_scores: Sequence[Tensor], batch_img_metas: Sequence[dict] | None = None
    ) -> Tensor:
        """Priors (P, 4) xyxy in pixels of all levels, on the device of the scores.

        Raises:
            ValueError: If the priors of a level do not cover the network input, whose size,
                ``batch_input_shape``, MMDetection's data preprocessors put into the images' metas.
        """
        sizes = [tuple(scores.shape[-2:]) for scores in cls_scores]
        if batch_img_metas and 'batch_input_shape' in batch_img_metas[0]:
            input_shape = batch_img_metas[0]['batch_input_shape']
            check_cover(sizes, self.prior_generator.strides, input_shape)
        return torch.cat(self.prior_generator.grid_priors(sizes, device=cls_scores[0].device))


def make_branch(
    widths: Sequence[int], outputs: int, use_depthwise: bool, layers: dict
) -> nn.Sequential:
    """A level's convolutions, laid out and named as in MMDetection's ``SSDHead``.

    They go from ``widths[0]`` channels through the others to ``outputs``; ``layers`` are the
    arguments ``conv_cfg``, ``norm_cfg`` and ``act_cfg`` of all but the last.
    """
    conv = DepthwiseSeparableConvModule if use_depthwise else ConvModule
    modules = [conv(a, b, 3, padding=1, **layers) for a, b in pairwise(widths)]
    last, kernel = widths[-1], 1 if use_depthwise else 3
    if use_depthwise:
        modules.append(ConvModule(last, last, 3, padding=1, groups=last, **layers))
    return nn.Sequential(*modules, nn.Conv2d(last, outputs, kernel, padding=kernel // 2))


def init_branch(branch: nn.Module, bias: float) -> None:
    """Initialise a branch's convolutions; ``bias`` is that of the last one.

    A depthwise convolution is normalised afterwards: small weights learn fast. Where there is one,
    the last layer gets the weights of MMDetection's SSDLite.
    """
    *before, last = (layer for layer in branch.modules() if isinstance(layer, nn.Conv2d))
    for conv in before:
        if conv.groups > 1:
            normal_init(conv, std=1e-3)
        else:
            xavier_init(conv, distribution='uniform')
    if any(conv.groups > 1 for conv in before):
        normal_init(last, std=1e-3, bias=bias)
    else:
        xavier_init(last, gain=1e-3, bias=bias, distribution='uniform')


def flatten_levels(maps: Sequence[Tensor], channels: int) -> Tensor:
    """Maps (B, A_k * channels, H_k, W_k) of all levels as (B, P, channels) float32.

    Priors are in the order of the prior generator: level by level, in a level cell by cell in row
    order, and in a cell the A_k priors in order. float32 because sums over thousands of priors and
    box sides need more digits than half precision has.
    """
    batch = maps[0].size(0)
    rows = [level.permute(0, 2, 3, 1).reshape(batch, -1, channels) for level in maps]
    return torch.cat(rows, dim=1).float()
