"""The recipe for own data, in place of the one that a config has for VOC or COCO."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config

from ssd_plugin.datasets.config import leaf_datasets

RECIPE = 'own_data_recipe'  # the variable with which a config names a recipe
TAKEN = ('train_cfg', 'optim_wrapper', 'param_scheduler', 'log_processor', 'auto_scale_lr')
KEPT = ('type', 'scale', 'mean', 'to_rgb')  # of SSDAugment: the network's, not the recipe's


def take_recipe(cfg: Config) -> str | None:
    """Have a config, in place, train by the recipe for own data that it names; say so.

    Configs for VOC and COCO name one, since their own are for a hundred times the images. The
    recipe's are then the schedule, the optimizer, the batch, the hooks and the strength of
    ``SSDAugment``. A config that names none keeps its own.
    """
    name = cfg.pop(RECIPE, None)
    if not name:
        return None
    recipe = get_config(name)
    for key in TAKEN:
        cfg[key] = recipe[key]  # Config.update would merge them
    default_hooks = cfg.setdefault('default_hooks', ConfigDict())
    for key, hook in recipe.default_hooks.items():
        default_hooks.setdefault(key, ConfigDict()).update(hook)
    new = {hook.type for hook in recipe.custom_hooks}
    own = [hook for hook in cfg.get('custom_hooks') or [] if hook.type not in new]
    cfg.custom_hooks = [*recipe.custom_hooks, *own]
    cfg.train_dataloader.batch_size = recipe.train_dataloader.batch_size
    strength = {key: value for key, value in recipe.augment.items() if key not in KEPT}
    for transform in ssd_augments(cfg):
        transform.update(strength)
    return f'Recipe: {name}, for own data, in place of the config\'s; {RECIPE}="" keeps that.'


def ssd_augments(cfg: Config) -> list[ConfigDict]:
    """Each ``SSDAugment`` in the pipelines that a config trains with."""
    return [
        transform
        for dataset in leaf_datasets(cfg.train_dataloader.dataset)
        for transform in dataset.pipeline
        if transform.type == 'SSDAugment'
    ]
