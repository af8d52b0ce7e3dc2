"""The training step, of SSD300-VGG by default: the model alone, and whole iterations from files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16

from ssd_plugin.datasets.config import resize_of

from .contestants import NUM_CLASSES, build_dataset, our_config, with_images
from .timing import BARE, MMDET, NO_LOADING, OURS, TORCHVISION, Case, Stopwatch, Work
from .training import Settings, SteppedTrainLoop, mmdet_loop, our_loop

Loops = dict[str, SteppedTrainLoop]  # by contestant


def run(stopwatch: Stopwatch, root: Path, work_dir: Path, settings: Settings) -> list[Case]:
    """Time steps on a batch in memory, and from the files under ``root``; logs go to a folder."""
    makers = {OURS: our_loop, MMDET: mmdet_loop} if settings.has_peers else {OURS: our_loop}
    with ExitStack() as stack:
        loops = {
            who: stack.enter_context(closing(make(root, work_dir / who, settings)))
            for who, make in makers.items()
        }
        samples = fixed_samples(root, settings)
        parts = time_model, time_from_files
        return [time_part(stopwatch, loops, samples, settings) for time_part in parts]


def fixed_samples(root: Path, settings: Settings) -> list[dict]:
    """Samples of a batch, uint8 images in the input size with their ground truth."""
    cfg = our_config(settings.config)
    resize = dict(type='Resize', scale=resize_of(cfg).scale, keep_ratio=False)
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    pipeline = [*load, resize, dict(type='PackDetInputs')]
    dataset = build_dataset(with_images(cfg, root, pipeline))
    return [dataset[i % len(dataset)] for i in range(settings.batch)]


def time_model(stopwatch: Stopwatch, loops: Loops, samples: list[dict], settings: Settings) -> Case:
    """Forward, backward and optimizer on a batch in memory, beside the bare convolutions."""
    batches = {who: loop.collate(samples) for who, loop in loops.items()}
    dtype, memory_format = loops[OURS].observed_format(batches[OURS])
    works: dict[str, Work] = {who: partial(loops[who].step_on, batches[who]) for who in loops}
    if settings.has_peers:
        works[TORCHVISION] = torchvision_step(samples, stopwatch.device)
        works[BARE] = bare_step(loops[OURS], samples, memory_format, stopwatch.device)
    seconds = stopwatch.alternate(works, per=settings.batch)
    layout = f'{dtype} {memory_format}'.replace('torch.', '')
    return make_case('model alone', seconds, settings, format=layout)


def time_from_files(
    stopwatch: Stopwatch, loops: Loops, samples: list[dict], settings: Settings
) -> Case:
    """Whole iterations: load, augment, forward, backward, optimizer."""
    batch, iterations = loops[OURS].collate(samples), settings.iterations

    def without_loading() -> None:
        for _ in range(iterations):
            loops[OURS].step_on(batch)

    works: dict[str, Work] = {who: partial(loop.take, iterations) for who, loop in loops.items()}
    works[NO_LOADING] = without_loading
    seconds = stopwatch.alternate(works, per=iterations * settings.batch)
    facts = dict(workers=settings.workers, iterations=iterations)
    return make_case('from files', seconds, settings, **facts)


def make_case(what: str, seconds: dict, settings: Settings, **facts: object) -> Case:
    """A case of this part, named after the model where it is not SSD300-VGG."""
    model = '' if settings.has_peers else f'{settings.config.stem}, '
    facts = dict(batch=settings.batch, **facts)
    return Case('step', f'{model}{what}, batch {settings.batch}', 'image', seconds, facts)


def torchvision_step(samples: list[dict], device: str) -> Callable[[], Tensor]:
    """A training step of torchvision's SSD300-VGG, with the paper's optimizer.

    Its images are floats on the device beforehand, which its recipe leaves to the loader.
    """
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=NUM_CLASSES + 1)
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    images = [s['inputs'].flip(0).float().to(device) / 255 for s in samples]  # RGB
    truth = [sample['data_samples'].gt_instances.to(device) for sample in samples]
    # The data preprocessor of another contestant may have unwrapped the boxes already.
    boxes = [getattr(t.bboxes, 'tensor', t.bboxes) for t in truth]
    targets = [dict(boxes=b, labels=t.labels + 1) for b, t in zip(boxes, truth)]

    def step() -> Tensor:
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def bare_step(
    ours: SteppedTrainLoop, samples: list[dict], memory_format: torch.memory_format, device: str
) -> Callable[[], None]:
    """Forward and backward of the same convolutions, in the dtype and memory format of ours.

    The optimizer wrapper decides the dtype, as it does for the plugin's model.
    """
    model = BareSSD300().to(device)
    model.to(memory_format=memory_format).train()  # type: ignore[call-overload] # not in its types
    images = torch.stack([sample['inputs'] for sample in samples]).float().sub(120)
    images = images.to(device, memory_format=memory_format)
    gradients: list[Tensor] = []

    def step() -> None:
        model.zero_grad()
        with ours.runner.optim_wrapper.optim_context(model):
            maps = model(images)
        if not gradients:
            gradients.extend(torch.full_like(m, 1e-3) for m in maps)
        torch.autograd.backward(maps, gradients)

    return step


class BareSSD300(nn.Module):
    """SSD300-VGG's convolutions, ReLUs and poolings: no normalisation, priors, matching, loss."""

    def __init__(self) -> None:
        super().__init__()
        ssd = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=NUM_CLASSES + 1)
        self.levels = nn.ModuleList([ssd.backbone.features, *ssd.backbone.extra])
        self.cls_convs = ssd.head.classification_head.module_list
        self.reg_convs = ssd.head.regression_head.module_list

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, 300, 300) to the maps of scores and of deltas, level by level."""
        maps = []
        for level, cls_conv, reg_conv in zip(self.levels, self.cls_convs, self.reg_convs):
            x = level(x)
            maps += [cls_conv(x), reg_conv(x)]
        return maps
