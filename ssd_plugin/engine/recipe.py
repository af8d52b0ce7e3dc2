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
    ``SSDAugment``. A config that names none keeps its own. The backbone has a lower learning rate
    only if it starts from trained weights.
    """
    name = cfg.pop(RECIPE, None)
    if not name:
        return None
    recipe = get_config(name)
    for key in TAKEN:
        cfg[key] = recipe[key]  # Config.update would merge them
    if not (cfg.get('load_from') or starts_from_weights(cfg.model.get('backbone', {}))):
        cfg.optim_wrapper.paramwise_cfg.custom_keys.pop('backbone')  # learns as fast as the rest
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


def starts_from_weights(backbone: dict) -> bool:
    """Whether a backbone's config names trained weights."""
    init_cfg = backbone.get('init_cfg') or {}
    init_cfgs = init_cfg if isinstance(init_cfg, list) else [init_cfg]
    by_init_cfg = any(one.get('type') == 'Pretrained' for one in init_cfgs)
    return by_init_cfg or bool(backbone.get('weights') or backbone.get('pretrained'))


def ssd_augments(cfg: Config) -> list[ConfigDict]:
    """Each ``SSDAugment`` in the pipelines that a config trains with, and in its variables."""
    pipelines = [dataset.pipeline for dataset in leaf_datasets(cfg.train_dataloader.dataset)]
    pipelines += [cfg.get('train_pipeline') or [], [cfg.augment] if 'augment' in cfg else []]
    return [step for pipeline in pipelines for step in pipeline if step.type == 'SSDAugment']
