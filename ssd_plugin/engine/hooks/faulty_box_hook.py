"""What training tells about its data: objects that it leaves out, labels without a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from ssd_plugin.models.ground_truth import LARGEST_SIDE, SMALLEST_SIDE, valid_gt_mask
from ssd_plugin.models.labels import check_labels

Faults = Counter  # how many objects of one image take no part, by reason


@HOOKS.register_module()
class FaultyBoxHook(Hook):
    """Report ground-truth boxes that take no part in training, and the images they are in.

    1. Before each iteration, look at the boxes as the model will get them, after augmentation,
       while they are still on the CPU: one test for the whole batch, nothing waits for a GPU.
    2. At the end of each epoch, before each validation and at the end of training (which ends
       the last epoch, also in loops that count iterations), sum over ranks. If there are more
       faults than at the last report, log one warning and write ``out_file`` in the work
       directory: a line with tab-separated path and faults for each image.

    Each object counts once, however often its image was seen: of several views of an image
    the one with most faults (or objects) counts. Without faults the hook says nothing.

    Args:
        out_file: Name of the list.
        max_names: How many images the warning names.
    """

    def __init__(self, out_file: str = 'faulty_boxes.txt', max_names: int = 3) -> None:
        self.out_file = out_file
        self.max_names = max_names
        self.faults: dict[str, Faults] = {}  # by image
        self.num_objects: dict[str, int] = {}  # by image
        self._num_reported = 0

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Count the objects and faults of a batch.

        ``data_batch`` is what a detection data loader gives: ``data_samples`` is a list of
        ``DetDataSample`` with ``gt_instances``, ``img_shape`` and ``img_path`` (or ``img_id``).
        """
        samples = data_batch['data_samples']
        for sample in samples:
            image, num_objects = image_of(sample), len(sample.gt_instances)
            self.num_objects[image] = max(num_objects, self.num_objects.get(image, 0))
        for image, faults in find_faults(samples).items():
            known = self.faults.get(image, Faults())
            self.faults[image] = max(known, faults, key=lambda counts: sum(counts.values()))

    def after_train_epoch(self, runner: Runner) -> None:
        """Report what is new."""
        self._report(runner)

    def before_val(self, runner: Runner) -> None:
        """Report what is new: loops that count iterations validate in the middle of an epoch."""
        self._report(runner)

    def _report(self, runner: Runner) -> None:
        faults = _merge(all_gather_object(self.faults), key=lambda counts: sum(counts.values()))
        by_reason = sum(faults.values(), Faults())
        num_faults = sum(by_reason.values())
        if num_faults <= self._num_reported:  # the same on all ranks: so they go on together
            return
        self._num_reported = num_faults
        num_objects = _merge(all_gather_object(self.num_objects), key=int)
        if not is_main_process():
            return
        path = Path(runner.work_dir) / self.out_file
        lines = [f'{image}\t{_describe(faults[image])}\n' for image in sorted(faults)]
        path.write_text(''.join(lines), encoding='utf-8')
        names = [Path(image).name for image in sorted(faults)]
        more = ', ...' if len(names) > self.max_names else ''
        runner.logger.warning(
            f'{num_faults} of {sum(num_objects.values())} objects take no part in training '
            f'({_describe(by_reason)}), in {len(faults)} of {len(num_objects)} images: '
            f'{", ".join(names[: self.max_names])}{more}; all are listed in {path}'
        )


@HOOKS.register_module()
class LabelRangeHook(Hook):
    """Refuse training data with labels that the head has no class for.

    Looks at each batch while it is still on the CPU. On a GPU a label out of range would end in
    an assertion that names nothing, some steps later, and background as a label in no error at
    all. MMDetection's ``NumClassCheckHook`` compares numbers of classes, and no labels.

    Does nothing for models without a ``bbox_head`` that has ``num_classes``.

    Raises:
        DataRefusedError: See :func:`~ssd_plugin.models.labels.check_labels`.
    """

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Check the labels of a batch: ``data_samples`` with ``gt_instances.labels``."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        num_classes = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
        if num_classes is None:
            return
        samples = data_batch['data_samples']
        labels = [sample.gt_instances.labels for sample in samples]
        check_labels(labels, num_classes, [image_of(sample) for sample in samples])


def find_faults(samples: Sequence[DetDataSample]) -> dict[str, Faults]:
    """Objects that can't be trained on, by path of the image; images without are left out."""
    counts = [len(sample.gt_instances) for sample in samples]
    bboxes = torch.cat([get_box_tensor(sample.gt_instances.bboxes) for sample in samples])  # (N, 4)
    # One a box; tensors of so few numbers take PyTorch's threads longer than Python.
    img_shapes = [s.img_shape[:2] for s, count in zip(samples, counts) for _ in range(count)]
    faulty = ~valid_gt_mask(bboxes, torch.tensor(img_shapes).view(-1, 2))
    if not faulty.any():
        return {}
    images = [image_of(sample) for sample, count in zip(samples, counts) for _ in range(count)]
    faults: dict[str, Faults] = {}
    for index in faulty.nonzero().flatten().tolist():
        faults.setdefault(images[index], Faults())[_reason(bboxes[index])] += 1
    return faults


def image_of(sample: DetDataSample) -> str:
    """Path of a sample's image, or its id where the pipeline keeps no path."""
    return str(sample.get('img_path', sample.get('img_id')))


def _reason(bbox: Tensor) -> str:
    """Why a box (4,) that can't be trained on can't."""
    if not bbox.isfinite().all():
        return 'not finite'
    size = bbox[2:] - bbox[:2]
    if (size < SMALLEST_SIDE).any():
        return 'without area'
    return 'too large' if (size > LARGEST_SIDE).any() else 'outside the image'


def _describe(faults: Faults) -> str:
    return ', '.join(f'{number} {reason}' for reason, number in faults.most_common())


def _merge(dicts: Iterable[dict], key: Callable[[Any], int]) -> dict:
    """One dict of several; of values under the same name the one with the greatest ``key``."""
    merged: dict = {}
    for one in dicts:
        for name, value in one.items():
            merged[name] = max(merged.get(name, value), value, key=key)
    return merged
