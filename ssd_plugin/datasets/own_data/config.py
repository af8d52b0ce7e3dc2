"""Fitting a config to other data than it was written for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ssd_plugin.datasets.config import leaf_datasets
from ssd_plugin.errors import DataRootError

VOC_METRICS, COCO_METRIC = ('VOCDetMetric', 'VOCMetric'), 'CocoMetric'
MIN_NEGATIVES = 5  # as docs/losses.md advises
KEPT = ('pipeline', 'test_mode', 'indices')  # of a data set's settings


def fit_data(
    cfg: Config,
    root: Path,
    classes: Sequence[str],
    files: Mapping[str, Path],
    is_benchmark: bool = False,
) -> None:
    """Point a config, in place, to a data set: classes, data sets, evaluators.

    ``classes`` are in the order of their labels; ``files`` are the COCO jsons of the parts, in
    which images are named from ``root``. A config's test data are ``val`` where there is no
    ``test``. Images without objects are trained on.

    Evaluators stay, with the area under the curve in VOC's unless this ``is_benchmark``, Pascal
    VOC itself.

    Raises:
        DataRootError: The model is not one of those whose number of classes can be set.
    """
    head = cfg.get('model', {}).get('bbox_head')
    if not isinstance(head, dict) or 'num_classes' not in head:
        raise DataRootError(f'--data-root needs model.bbox_head.num_classes in {cfg.filename}')
    cfg.model.bbox_head.num_classes = len(classes)
    data_root = f'{root.absolute()}/'
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
            cfg[f'{split}_evaluator'] = fit_evaluator(evaluator, files[part], is_benchmark)
    # Other settings of the config that are about the data it was written for.
    cfg.pop('prepare_data', None)
    values = dict(dataset_type=dataset['type'], data_root=data_root, classes=tuple(classes))
    cfg.update({name: value for name, value in values.items() if name in cfg})


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
    new.pipeline = [step for step in old.pipeline if step.type != 'TrainOnDifficult']
    holder.dataset = new


def fit_evaluator(evaluator: dict | list | None, file: Path, is_benchmark: bool) -> dict | list:
    """The config's evaluator for other data; VOC's where the config has none."""
    metrics = evaluator if isinstance(evaluator, list) else [evaluator or dict(type='VOCDetMetric')]
    fitted = []
    for metric in metrics:
        kind = str(metric.get('type'))
        if metric.get('ann_file') or kind.endswith(COCO_METRIC):
            metric = dict(metric, ann_file=str(file))
        elif kind in VOC_METRICS and not is_benchmark:
            metric = dict(metric, eval_mode='area')
        fitted.append(metric)
    return fitted if isinstance(evaluator, list) else fitted[0]


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
