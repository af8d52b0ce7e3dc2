"""Fitting a config to other data than it was written for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ssd_plugin.datasets.config import leaf_datasets
from ssd_plugin.datasets.own_data.records import Source
from ssd_plugin.errors import DataRootError

COCO_DATASETS = ('CheckedCocoDataset', 'CocoDataset')
VOC_METRICS = ('VOCDetMetric', 'VOCMetric')
KEPT = ('pipeline', 'filter_cfg', 'test_mode', 'indices')  # of a data set's settings
VOC_PASSES = 232  # over VOC's 16,551 images, in its 120,000 iterations of 32 images
MIN_ITERATIONS = 1000  # of a shorter schedule that is proposed


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


def fit_batch(cfg: Config, num_images: int, processes: int) -> str | None:
    """Limit batches to the size of the data set; a sentence about it if that changes them."""
    loader = cfg.train_dataloader
    own = math.ceil(num_images / processes)  # images of a process in an epoch
    if loader.batch_size > own:
        loader.batch_size = own
        return f'Batch: {own} images a process, since there are no more.'
    last = own % loader.batch_size
    if last == 1 and loader.get('sampler', {}).get('type') == 'DefaultSampler':
        # Batch normalisation has no variance over one image's map of 1 x 1.
        loader.setdefault('drop_last', True)
        if loader.drop_last:
            return "Batch: an epoch's last, of one image, is left out."
    return None


def scale_learning_rate(cfg: Config, base: int, processes: int, given: bool) -> str:
    """Have MMEngine scale the learning rate with the batch, and say what it becomes.

    ``base`` is the batch that it is for if the config has no ``auto_scale_lr``; ``given`` says
    whether the user has set the learning rate, or its scaling.
    """
    rate, batch = cfg.optim_wrapper.optimizer.lr, cfg.train_dataloader.batch_size * processes
    if given:
        return f'Learning rate: {rate:g}, as --cfg-options have it; batches are of {batch}.'
    base = cfg.get('auto_scale_lr', {}).get('base_batch_size', base)
    cfg.auto_scale_lr = dict(enable=True, base_batch_size=base)
    if batch == base:
        return f'Learning rate: {rate:g}, as the config has it for batches of {base}.'
    return (
        f'Learning rate: {rate * batch / base:g} for batches of {batch}; '
        f'the config has {rate:g} for batches of {base}.'
    )


def describe_schedule(cfg: Config, num_images: int, processes: int) -> str:
    """How long the config trains, and how to shorten it if that is much longer than sensible."""
    loader = cfg.train_dataloader
    if 'max_epochs' in cfg.train_cfg:
        epochs = cfg.train_cfg.max_epochs
        steps = math.ceil(num_images / processes) / loader.batch_size
        steps = math.floor(steps) if loader.get('drop_last') else math.ceil(steps)
        plural = 's' if epochs > 1 else ''
        return f'Schedule: {epochs} epoch{plural} of {steps} iterations, as the config has it.'
    batch = loader.batch_size * processes
    iterations = cfg.train_cfg.max_iters
    passes = iterations * batch / num_images
    text = (
        f'Schedule: {iterations} iterations of {batch} images, as the config has it: '
        f'{passes:.0f} passes over {num_images} images.'
    )
    fewer = max(MIN_ITERATIONS, math.ceil(VOC_PASSES * num_images / batch))
    if iterations < 2 * fewer:
        return text
    options = [f'train_cfg.max_iters={fewer}']
    for i, scheduler in enumerate(cfg.get('param_scheduler') or []):
        if 'milestones' in scheduler:
            milestones = [round(step * fewer / iterations) for step in scheduler.milestones]
            options.append(f'param_scheduler.{i}.milestones={str(milestones).replace(" ", "")}')
    return (
        f"{text} VOC's own schedule makes {VOC_PASSES} over VOC; for fewer: "
        f'--cfg-options {" ".join(options)}'
    )
