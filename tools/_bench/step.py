"""The training step, of SSD300-VGG by default: the model alone, and whole iterations from files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16

from .bare import BareSSD300
from .configs import NUM_CLASSES, OUR_CONFIG, build_dataset, our_config, with_images
from .timing import BARE, MMDET, NO_LOADING, OURS, TORCHVISION, Case, Stopwatch
from .training import Trainer, mmdet_trainer, our_trainer


def plain_pipeline(size: tuple[int, int]) -> list[dict]:
    """From a file to a sample in memory: nothing but what the input size demands."""
    return [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=size, keep_ratio=False),
        dict(type='PackDetInputs'),
    ]


@dataclass
class Settings:
    """How to train.

    Args:
        batch: Images a step.
        workers: Processes of each loader.
        iterations: Steps from files in a round.
        amp: Whether the plugin trains in mixed precision.
        config: What it trains. The peers train SSD300-VGG, so beside others there are none.
    """

    batch: int
    workers: int
    iterations: int
    amp: bool = False
    config: Path = OUR_CONFIG

    @property
    def has_peers(self) -> bool:
        return self.config.resolve() == OUR_CONFIG

    def name(self, what: str) -> str:
        """Of a case."""
        model = '' if self.has_peers else f'{self.config.stem}, '
        return f'{model}{what}, batch {self.batch}'


def run(stopwatch: Stopwatch, root: Path, work_dir: Path, settings: Settings) -> list[Case]:
    """Time both; images are those under ``root``, logs go to ``work_dir``."""
    loader = (settings.batch, settings.workers)
    with ExitStack() as stack:
        ours = our_trainer(root, work_dir / 'ours', *loader, settings.amp, settings.config)
        stack.enter_context(closing(ours))
        theirs = None
        if settings.has_peers:
            theirs = mmdet_trainer(root, work_dir / 'mmdet', *loader)
            stack.enter_context(closing(theirs))
        samples = fixed_samples(root, settings)
        return [
            time_model(stopwatch, ours, theirs, samples, settings),
            time_from_files(stopwatch, ours, theirs, samples, settings),
        ]


def time_model(
    stopwatch: Stopwatch,
    ours: Trainer,
    theirs: Trainer | None,
    samples: list[dict],
    settings: Settings,
) -> Case:
    """Forward, backward and optimiser on a batch in memory, beside the bare convolutions."""
    batch = ours.collate(samples)
    dtype, memory_format = ours.observed_format(batch)
    works = {OURS: lambda: ours.step_on(batch)}
    if theirs:
        their_batch = theirs.collate(samples)
        works |= {
            MMDET: lambda: theirs.step_on(their_batch),
            TORCHVISION: torchvision_step(samples, stopwatch.device),
            BARE: bare_step(ours, samples, memory_format, stopwatch.device),
        }
    seconds = stopwatch.alternate(works, per=settings.batch)
    facts = dict(batch=settings.batch, format=f'{dtype} {memory_format}'.replace('torch.', ''))
    return Case('step', settings.name('model alone'), 'image', seconds, facts)


def time_from_files(
    stopwatch: Stopwatch,
    ours: Trainer,
    theirs: Trainer | None,
    samples: list[dict],
    settings: Settings,
) -> Case:
    """Whole iterations: load, augment, forward, backward, optimiser."""
    batch = ours.collate(samples)

    def without_loading() -> None:
        for _ in range(settings.iterations):
            ours.step_on(batch)

    works = {OURS: lambda: ours.loop.take(settings.iterations)}
    if theirs:
        works[MMDET] = lambda: theirs.loop.take(settings.iterations)
    works[NO_LOADING] = without_loading
    seconds = stopwatch.alternate(works, per=settings.iterations * settings.batch)
    facts = dict(batch=settings.batch, workers=settings.workers, iterations=settings.iterations)
    return Case('step', settings.name('from files'), 'image', seconds, facts)


def fixed_samples(root: Path, settings: Settings) -> list[dict]:
    """What a loader makes a batch of: uint8 images and their objects."""
    cfg = our_config(settings.config)
    resize = next(t for t in cfg.test_pipeline if t.type == 'Resize')
    dataset = build_dataset(with_images(cfg, root, plain_pipeline(resize.scale)))
    return [dataset[i % len(dataset)] for i in range(settings.batch)]


def torchvision_step(samples: list[dict], device: str) -> Callable[[], Tensor]:
    """torchvision's training of its SSD300-VGG, with the paper's optimiser.

    Its images are floats on the device beforehand, which its recipe leaves to the loader.
    """
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=NUM_CLASSES + 1)
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    images = [s['inputs'].flip(0).float().to(device) / 255 for s in samples]  # RGB
    objects = [sample['data_samples'].gt_instances.to(device) for sample in samples]
    targets = [dict(boxes=boxes_of(o), labels=o.labels + 1) for o in objects]

    def step() -> Tensor:
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def boxes_of(objects: InstanceData) -> Tensor:
    return getattr(objects.bboxes, 'tensor', objects.bboxes)


def bare_step(
    ours: Trainer, samples: list[dict], memory_format: torch.memory_format, device: str
) -> Callable[[], None]:
    """Forward and backward of the same convolutions, in the type and format that ours have.

    The optimiser's context decides of the type, as for the plugin's model.
    """
    model: nn.Module = BareSSD300().to(device, memory_format=memory_format).train()
    images = (
        torch.stack([sample['inputs'] for sample in samples])
        .float()
        .sub(120)
        .to(device, memory_format=memory_format)
    )
    gradients = []

    def step() -> None:
        model.zero_grad()
        with ours.runner.optim_wrapper.optim_context(model):
            maps = model(images)
        if not gradients:
            gradients.extend(torch.full_like(m, 1e-3) for m in maps)
        torch.autograd.backward(maps, gradients)

    return step
