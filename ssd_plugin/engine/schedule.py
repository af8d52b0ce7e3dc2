"""How long a config trains: its schedule in epochs, and the batch and learning rate for its data.

The functions change a config in place. ``processes`` is how many train together, each with batches
of ``train_dataloader.batch_size``; ``num_images`` is how many images there are to train on.
"""

from __future__ import annotations

import math

from mmengine.config import Config, ConfigDict

from ssd_plugin.errors import ConfigError

# How many epochs own data are trained for: IMAGES seen, within these bounds (docs/results.md).
IMAGES = 12_000
MIN_EPOCHS = 12
MAX_EPOCHS = 100

WARM_UP_SHARE = 0.1  # of the whole training, at most
VALIDATIONS = 10  # in a whole training, at most
SCALED = ('begin', 'end', 'T_max', 'total_steps')  # of schedulers: may be within an epoch
ROUNDED = ('milestones', 'step_size', 'periods')  # are whole numbers of epochs


def fit_schedule(cfg: Config, num_images: int, processes: int, epochs: int | None) -> str:
    """Have a config train for a number of epochs, by default one that suits own data; say so."""
    own, reason = cfg.train_cfg.get('max_epochs'), 'as you said'
    if epochs is None:
        epochs = choose_epochs(cfg, num_images)
        reason = 'as the config has it' if epochs == own else f'chosen for {num_images} images'
        reason = f'{reason}; --epochs N changes it'
    set_epochs(cfg, epochs, num_images, processes)
    length = epoch_length(cfg, num_images, processes)
    steps = f'{length} iteration{"s" if length > 1 else ""}'
    return f'Schedule: {epochs} epoch{"s" if epochs > 1 else ""} of {steps}, {reason}.'


def choose_epochs(cfg: Config, num_images: int) -> int:
    """The number of epochs for own data: never more than the config has, if it counts epochs."""
    most = cfg.train_cfg.get('max_epochs', MAX_EPOCHS)
    return min(most, max(MIN_EPOCHS, math.ceil(IMAGES / num_images)))


def set_epochs(cfg: Config, epochs: int, num_images: int, processes: int) -> None:
    """Have a config train for a number of epochs, whatever its schedule counts in.

    1. The loop counts epochs; it validates at most ``VALIDATIONS`` times, at the end in any case.
    2. A checkpoint is saved at each validation; the best and the last ones are kept.
    3. Steps of the learning rate keep their place in the training, to the nearest epoch; curves
       are stretched or compressed. A warm-up that counts iterations keeps its length, up to
       ``WARM_UP_SHARE`` of the training.
    4. The sampler goes through the data once an epoch, and the log counts epochs.

    Raises:
        ConfigError: A scheduler, other than a warm-up, doesn't count what the loop does.
    """
    in_epochs = 'max_epochs' in cfg.train_cfg
    old_length = cfg.train_cfg.max_epochs if in_epochs else cfg.train_cfg.max_iters
    warm_up = math.ceil(WARM_UP_SHARE * epochs * epoch_length(cfg, num_images, processes))
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if is_warm_up(scheduler, old_length if not in_epochs else math.inf):
            scheduler.end = min(scheduler.end, warm_up)
        elif scheduler.get('by_epoch', True) is in_epochs:
            rescale(scheduler, epochs / old_length, smooth=not in_epochs)
        else:
            raise ConfigError(
                f'--epochs: param_scheduler has a {scheduler.type} with by_epoch='
                f'{not in_epochs}, and train_cfg counts {"epochs" if in_epochs else "iterations"}'
            )
    interval = math.ceil(epochs / VALIDATIONS)
    cfg.train_cfg = ConfigDict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=interval)
    cfg.pop('max_iters', None)  # variables of the config
    if 'max_epochs' in cfg:
        cfg.max_epochs = epochs
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    checkpoint = hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook'))
    checkpoint.pop('save_begin', None)
    checkpoint.update(by_epoch=True, interval=interval)
    if checkpoint.get('max_keep_ckpts', -1) < 0:
        checkpoint.max_keep_ckpts = 2  # an old one is removed before the new one is written
    if cfg.get('val_cfg') and not checkpoint.get('save_best'):
        checkpoint.save_best = 'auto'
    cfg.setdefault('log_processor', ConfigDict(type='LogProcessor')).by_epoch = True
    if cfg.train_dataloader.get('sampler', {}).get('type') == 'InfiniteSampler':
        cfg.train_dataloader.sampler.type = 'DefaultSampler'


def is_warm_up(scheduler: ConfigDict, num_iterations: float) -> bool:
    """Whether a scheduler counts the first iterations of a training, and not all of them."""
    counts_iterations = not scheduler.get('by_epoch', True)
    return (
        counts_iterations
        and not scheduler.get('begin', 0)
        and not any(key in scheduler for key in ('T_max', *ROUNDED))
        and scheduler.get('end', math.inf) < num_iterations
    )


def rescale(scheduler: ConfigDict, scale: float, smooth: bool) -> None:
    """Multiply what a scheduler counts by ``scale``, which makes it count epochs.

    ``smooth`` has the learning rate change in each iteration, not only after each epoch.
    """
    if smooth and not any(key in scheduler for key in ROUNDED):
        scheduler.convert_to_iter_based = True
    scheduler.by_epoch = True
    for key in SCALED:
        if key in scheduler and scheduler[key] < 10**9:  # more is MMEngine's infinity
            value = round(scheduler[key] * scale, 4)
            smooth_ends = scheduler.get('convert_to_iter_based') and value % 1
            scheduler[key] = value if smooth_ends else round(value)
    for key in ROUNDED:
        if isinstance(scheduler.get(key), (list, tuple)):
            scheduler[key] = [max(1, round(value * scale)) for value in scheduler[key]]
        elif key in scheduler:
            scheduler[key] = max(1, round(scheduler[key] * scale))


def epoch_length(cfg: Config, num_images: int, processes: int) -> int:
    """How many iterations an epoch has, once :func:`fit_batch` has limited the batch."""
    own = math.ceil(num_images / processes)  # images of a process in an epoch
    loader = cfg.train_dataloader
    batch = min(loader.batch_size, own)
    full, rest = divmod(own, batch)
    return full + bool(rest and not loader.get('drop_last', full and rest == 1))


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


def describe_iterations(cfg: Config, num_images: int, processes: int) -> str:
    """How often a config that counts iterations passes over the data."""
    iterations = cfg.train_cfg.max_iters
    batch = min(cfg.train_dataloader.batch_size, math.ceil(num_images / processes)) * processes
    passes = iterations * batch / num_images
    return (
        f'Schedule: {iterations} iterations of {batch} images, which are {passes:.0f} passes over '
        f'{num_images} images; --epochs N sets another number of these.'
    )


def describe_scaled_batch(cfg: Config, processes: int) -> str:
    """What ``--auto-scale-lr`` makes of the learning rate, and what it leaves: the iterations."""
    base = cfg.auto_scale_lr.base_batch_size
    text = scale_learning_rate(cfg, base, processes, given=False)
    batch = cfg.train_dataloader.batch_size * processes
    iterations = cfg.train_cfg.get('max_iters')
    if iterations is None or batch == base:
        return text
    return (
        f'{text} The {iterations} iterations stay: {batch / base:g} times the passes over the data;'
        f' as many passes as before are {round(iterations * base / batch)}. --epochs counts passes.'
    )
