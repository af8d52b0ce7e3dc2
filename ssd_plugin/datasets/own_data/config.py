"""Fitting a config to other data than it was written for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ssd_plugin.datasets.config import leaf_datasets
from ssd_plugin.datasets.own_data.records import Source
from ssd_plugin.errors import DataRootError

VOC_METRICS, COCO_METRIC = ('VOCDetMetric', 'VOCMetric'), 'CocoMetric'
MIN_NEGATIVES = 5  # as docs/losses.md advises
IGNORED_SHARE = 0.5  # of a prior's area, inside a crowd
KEPT = ('pipeline', 'test_mode', 'indices')  # of a data set's settings


def fit_data(
    cfg: Config, source: Source, classes: Sequence[str], files: Mapping[str, Path]
) -> None:
    """Point a config, in place, to a data set: classes, data sets, evaluators.

    ``classes`` are in the order of their labels; ``files`` are the COCO jsons of the parts, in
    which images are named from the source's root. A config's test data are ``val`` where there is
    no ``test``. Images without objects are trained on. Evaluators stay, see :func:`fit_evaluator`.

    Raises:
        DataRootError: The model is not one of those whose number of classes can be set.
    """
    head = cfg.get('model', {}).get('bbox_head')
    if not isinstance(head, dict) or 'num_classes' not in head:
        raise DataRootError(f'--data-root needs model.bbox_head.num_classes in {cfg.filename}')
    cfg.model.bbox_head.num_classes = len(classes)
    data_root = f'{source.root.absolute()}/'
    dataset = dict(
        type='CheckedCocoDataset',
        data_root=data_root,
        data_prefix=dict(img=''),
        # No palette: those of MMDetection's data sets are for 20 or 80 classes.
        metainfo=dict(classes=tuple(classes), palette=None),
    )
    for split in ('train', 'val', 'test'):
        part = 'val' if split == 'test' and 'test' not in files else split
        if part not in files or not cfg.get(f'{split}_dataloader'):
            continue
        replace_dataset(cfg[f'{split}_dataloader'], dict(dataset, ann_file=str(files[part])))
        if split != 'train':
            evaluator = cfg.get(f'{split}_evaluator')
            cfg[f'{split}_evaluator'] = fit_evaluator(evaluator, files[part], source)
    # Other settings of the config that are about the data it was written for.
    cfg.pop('prepare_data', None)
    values = dict(dataset_type=dataset['type'], data_root=data_root, classes=tuple(classes))
    cfg.update({name: value for name, value in values.items() if name in cfg})
    for name in ('load', 'train_pipeline'):
        if name in cfg:
            cfg[name] = without_difficult(cfg[name])


def replace_dataset(loader: ConfigDict, dataset: dict) -> None:
    """Replace the data set of a loader; repetitions of it stay, concatenations go.

    ``TrainOnDifficult`` goes: "difficult" boxes are ordinary in what is trained on, and what is
    ignored there are crowds.
    """
    holder = loader
    while 'dataset' in holder.dataset:
        holder = holder.dataset
    old = leaf_datasets(holder.dataset)[0]
    new = ConfigDict(dataset, **{key: old[key] for key in KEPT if key in old})
    new.pipeline = without_difficult(old.pipeline)
    holder.dataset = new


def without_difficult(pipeline: Sequence[ConfigDict]) -> list[ConfigDict]:
    """A pipeline without ``TrainOnDifficult``."""
    return [step for step in pipeline if step.type != 'TrainOnDifficult']


def fit_evaluator(evaluator: dict | list | None, file: Path, source: Source) -> dict | list:
    """The config's evaluator for other data; VOC's where the config has none.

    VOC's takes the area under the curve, but for Pascal VOC itself; and the last pixel of a box as
    part of it for VOC's files only.
    """
    metrics = evaluator if isinstance(evaluator, list) else [evaluator or dict(type='VOCDetMetric')]
    fitted = []
    for metric in metrics:
        kind = str(metric.get('type'))
        if metric.get('ann_file') or kind.endswith(COCO_METRIC):
            metric = dict(metric, ann_file=str(file))
        elif kind in VOC_METRICS and not source.benchmark:
            metric = dict(metric, eval_mode='area')
            if kind == VOC_METRICS[0] and source.kind != 'VOC':
                metric.setdefault('use_legacy_coordinate', False)
        fitted.append(metric)
    return fitted if isinstance(evaluator, list) else fitted[0]


def ignore_crowds(cfg: Config) -> bool:
    """Have priors inside crowds be no background, which by SSD's matching they are; whether it can.

    A config that says which share of a prior may be inside one keeps that.
    """
    assigner = (cfg.model.get('train_cfg') or {}).get('assigner') or {}
    if assigner.get('type') not in ('BatchMaxIoUAssigner', 'MaxIoUAssigner'):
        return False
    if assigner.get('ignore_iof_thr', -1) < 0:
        assigner['ignore_iof_thr'] = IGNORED_SHARE
    return True


def mine_in_empty_images(cfg: Config) -> int | None:
    """Have images without objects teach what background is, where the loss would not let them.

    Returns:
        How many negatives the loss keeps at least in each image; None if it does not mine, so
        that every image teaches.
    """
    head = cfg.model.bbox_head
    loss = head.get('loss_cls')
    if loss is None and head.type in ('SSDMultiBoxHead', 'PISASSDMultiBoxHead'):
        loss = ConfigDict(type='HardNegativeMiningLoss')  # its default
    if loss is None or loss.type != 'HardNegativeMiningLoss':
        return None
    if 'min_negatives' not in loss:
        loss.min_negatives = MIN_NEGATIVES
        head.loss_cls = loss
    return loss.min_negatives
