"""Checks that the data of a config exist, without importing PyTorch or MMDetection.

It is not in the package, whose import takes seconds: missing data are to be reported before that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


class DataNotFoundError(FileNotFoundError):
    """A path that a config's data set needs is missing; the message is one line."""


def check_data(cfg: Mapping, splits: Iterable[str] = ('train', 'val', 'test')) -> None:
    """Look for the annotation file and the folders of each data set of a config, not yet built.

    That is ``{split}_dataloader.dataset`` of each split that the config has, inside wrappers, with
    paths joined as MMEngine's ``BaseDataset`` joins them. Paths on other storage are not looked
    for: URLs, LMDBs, and data sets whose ``backend_args`` are not for local files. The config's key
    ``prepare_data``, if it has one, is the command that gets the data, for the message.

    Raises:
        DataNotFoundError: A path is missing; the message names the first, and the remedy.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for dataset in _leaves(loader.get('dataset', [])):
            for path in _needed_paths(dataset):
                if not os.path.exists(path):
                    remedy = 'set data_root in the config to where the data are'
                    if cfg.get('prepare_data'):
                        remedy = f'get the data with `{cfg["prepare_data"]}`, or {remedy}'
                    raise DataNotFoundError(f'{path} is missing ({split} data): {remedy}')


def _leaves(dataset: Any) -> list:
    """As ``leaf_datasets`` of ``ssd_plugin.datasets.config``, which cannot be imported yet."""
    if isinstance(dataset, (list, tuple)):
        return [leaf for inner in dataset for leaf in _leaves(inner)]
    inner = dataset.get('datasets', dataset.get('dataset'))
    return [dataset] if inner is None else _leaves(inner)


def _needed_paths(dataset: Mapping) -> Iterator[str]:
    if (dataset.get('backend_args') or {}).get('backend', 'local') != 'local':
        return
    named = dict(dataset.get('data_prefix') or {})
    if dataset.get('ann_file'):
        named = dict(ann_file=dataset['ann_file'], **named)
    for key, path in named.items():
        path = os.path.join(dataset.get('data_root') or '', path)  # an absolute path stays as it is
        if not path or '://' in path or '.lmdb' in path:
            continue
        yield path
        if key == 'sub_data_root':  # a VOC tree
            yield os.path.join(path, dataset.get('img_subdir', 'JPEGImages'))
            yield os.path.join(path, dataset.get('ann_subdir', 'Annotations'))
