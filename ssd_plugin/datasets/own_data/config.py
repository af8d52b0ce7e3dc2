"""Fitting a config to other data than it was written for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ssd_plugin.datasets.config import leaf_datasets
from ssd_plugin.datasets.own_data.records import Source
from ssd_plugin.errors import DataRootError

COCO_DATASETS = ('CheckedCocoDataset', 'CocoDataset')
VOC_METRICS = ('VOCDetMetric', 'VOCMetric')
KEPT = ('pipeline', 'filter_cfg', 'test_mode', 'indices')  # of a data set's settings


def fit_data(
    cfg: Config, source: Source, classes: Sequence[str], files: Mapping[str, Path]
) -> None:
    """Point a config, in place, to a data set: classes, data sets, evaluators. Pipelines stay.

    ``classes`` are in the order of their labels; ``files`` say which images are in a part, by part.
    A config's test data are ``val`` where there is no ``test``.

    Raises:
        DataRootError: The model is not one of those whose number of classes can be set.
    """
    head = cfg.get('model', {}).get('bbox_head')
    if not isinstance(head, dict) or 'num_classes' not in head:
        raise DataRootError(f'--data-root needs model.bbox_head.num_classes in {cfg.filename}')
    cfg.model.bbox_head.num_classes = len(classes)
    for split in ('train', 'val', 'test'):
        part = 'val' if split == 'test' and 'test' not in files else split
        if part not in files or not cfg.get(f'{split}_dataloader'):
            continue
        dataset = dict(
            **source.dataset(part),
            ann_file=str(files[part]),
            # No palette: those of MMDetection's data sets are for 20 or 80 classes.
            metainfo=dict(classes=tuple(classes), palette=None),
        )
        replace_dataset(cfg[f'{split}_dataloader'], dataset, source)
        if split != 'train':
            evaluator = cfg.get(f'{split}_evaluator')
            cfg[f'{split}_evaluator'] = fit_evaluator(evaluator, source, files[part])
    # Other settings of the config that are about the data it was written for.
    cfg.pop('prepare_data', None)
    values = dict(source.dataset('val' if 'val' in files else 'test'), classes=tuple(classes))
    for name, value in (('dataset_type', 'type'), ('data_root',) * 2, ('classes',) * 2):
        if name in cfg:
            cfg[name] = values[value]


def replace_dataset(loader: ConfigDict, dataset: dict, source: Source) -> None:
    """Replace the data set of a loader; repetitions of it stay, concatenations go."""
    holder = loader
    while 'dataset' in holder.dataset:
        holder = holder.dataset
    old = leaf_datasets(holder.dataset)[0]
    new = ConfigDict(dataset, **{key: old[key] for key in KEPT if key in old})
    if source.kind == 'COCO':  # TrainOnDifficult would train on crowds
        new.pipeline = [step for step in old.pipeline if step.type != 'TrainOnDifficult']
    else:
        if new.get('filter_cfg'):  # min_size goes by annotated sizes, of which some are 0
            new.filter_cfg.pop('min_size', None)
        if old.type in COCO_DATASETS and not old.get('test_mode'):
            steps = []
            for step in old.pipeline:
                steps.append(step)
                if step['type'] == 'LoadAnnotations':  # what SSD's recipe for VOC adds
                    steps.append(ConfigDict(type='TrainOnDifficult'))
            new.pipeline = steps
    holder.dataset = new


def fit_evaluator(evaluator: dict | list | None, source: Source, file: Path) -> dict | list:
    """The config's evaluator if it is for this format, else one that is."""
    metrics = evaluator if isinstance(evaluator, list) else [evaluator or {}]
    if source.kind == 'VOC':
        if any(not metric or metric.get('ann_file') for metric in metrics):
            return dict(source.evaluator)
        if not source.benchmark:  # which is counted at 11 points
            metrics = [
                dict(m, eval_mode='area') if m.get('type') in VOC_METRICS else m for m in metrics
            ]
    else:
        if not any(metric.get('ann_file') for metric in metrics):
            return dict(source.evaluator, ann_file=str(file))
        metrics = [dict(m, ann_file=str(file)) if m.get('ann_file') else m for m in metrics]
    return metrics if isinstance(evaluator, list) else metrics[0]
