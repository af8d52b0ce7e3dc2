"""An exported file in the place of a config's model, to evaluate it as a checkpoint is."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook
from mmengine.runner import Runner

from ssd_plugin.checkpoints.load import dataset_classes, label_names
from ssd_plugin.engine.hooks.strict_load_hook import unwrap
from ssd_plugin.errors import InputError
from ssd_plugin.export.exported import open_exported


def use_exported(cfg: Config, path: str) -> None:
    """Have a config's model be an exported file, in place; data and metrics stay the config's.

    Raises:
        InputError: If what is asked for can't be had of a file.
    """
    if cfg.get('launcher', 'none') != 'none':
        raise InputError(
            f'{path} is an exported file, which one process tests: leave out launchers'
        )
    cfg.model = ConfigDict(type=open_exported.__name__, path=path, test_cfg=cfg.model.test_cfg)
    cfg.load_from = None
    # It copies the model, which a runtime's session can't be; the file has the average already.
    hooks = cfg.get('custom_hooks') or []
    cfg.custom_hooks = [hook for hook in hooks if hook['type'] not in ('EMAHook', EMAHook)]


def fit_to_data(runner: Runner) -> None:
    """Have a runner's exported file answer the labels of the data that it is tested on.

    Raises:
        InputError: If its classes or its input size are not those of the data and of the config.
    """
    detector, dataset = unwrap(runner.model), runner.test_loop.dataloader.dataset
    detector.require_images_of(runner.cfg)
    classes = label_names(dataset) or dataset_classes(dataset)
    if classes:
        detector.number_labels_by(classes)
