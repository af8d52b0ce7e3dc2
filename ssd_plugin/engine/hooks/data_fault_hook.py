"""Reporting what takes no part in a run: faulty files and boxes, labels out of range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmdet.models import BaseDetector
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ssd_plugin.datasets.config import leaf_datasets
from ssd_plugin.datasets.faults import (
    DataFault,
    Kind,
    count_kinds,
    image_name,
    known_faults,
    name_files,
    write_faults,
)
from ssd_plugin.errors import DataRefusedError
from ssd_plugin.models.boxes import LARGEST_SIDE, SMALLEST_SIDE, valid_gt_mask


@HOOKS.register_module()
class DataFaultHook(Hook):
    """Report faulty files and boxes, and refuse labels that the head has no class for.

    1. Before training, validation and testing, collect the faults that reading the annotations has
       found, of the package's data sets (``FaultTolerance``).
    2. Before each iteration, while the batch is on the CPU, collect the faults that loading has
       found, which come with the samples. In training, also check the labels: a GPU would end with
       an assertion that names nothing some steps later, and take background as a label without an
       error. (MMDetection's ``NumClassCheckHook`` compares numbers of classes, not labels.) And
       count the ground-truth boxes that take no part in training, as the model will get them, after
       augmentation: one test for the whole batch, which waits for no GPU.
    3. Before and after all that, at the end of each epoch and before and after each validation, sum
       over ranks. If there is more than at the last report, log a warning and write ``out_file`` in
       the work directory: a line with tab-separated split, path, kind of fault and details.
    4. In evaluation, remove the detections in images that cannot be decoded.

    A box counts once, however often its image is seen: of several views of an image the one with
    the most faulty boxes counts. Without faults the hook says nothing. Labels are only checked for
    models with a ``bbox_head`` that has ``num_classes``.

    Args:
        out_file: Name of the list.
        max_names: How many files a warning names.

    Raises:
        DataRefusedError: For a label out of range: :func:`check_labels`.
    """

    def __init__(self, out_file: str = 'data_faults.txt', max_names: int = 3) -> None:
        self.out_file = out_file
        self.max_names = max_names
        self.faults: set[tuple[str, DataFault]] = set()  # with the split
        self.num_boxes: dict[str, int] = {}  # by image, of training
        self.faulty_boxes: dict[str, Counter] = {}  # by image, of training: number by kind
        self._num_reported = [0, 0]  # faults of files, faulty boxes
        self._handles: list[RemovableHandle] = []

    def before_train(self, runner: Runner) -> None:
        """Report what reading the annotations has found, and how many images are empty."""
        leaves = leaf_datasets(runner.train_dataloader.dataset)
        num_empty = sum(getattr(leaf, 'num_empty_left_out', 0) for leaf in leaves)
        if num_empty:
            runner.logger.warning(
                f'{num_empty} images without objects are not trained on (filter_empty_gt=True)'
            )
        self._start(runner, 'train')

    def before_val(self, runner: Runner) -> None:
        """Report what is new: loops that count iterations validate in the middle of an epoch."""
        self._start(runner, 'val')

    def before_test(self, runner: Runner) -> None:
        """As before a validation."""
        self._start(runner, 'test')

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: dict, mode: str) -> None:
        """Collect the faults of a batch; in training, check its labels and count its faulty boxes.

        MMEngine calls it before each iteration of train, val and test, which is the ``mode``.
        """
        # With gt_instances, img_shape and img_path (or img_id); in evaluation perhaps a list of
        # views for each image.
        samples = data_batch['data_samples']
        for sample in samples:
            for view in sample if isinstance(sample, (list, tuple)) else [sample]:
                self.faults.update((mode, fault) for fault in view.get('data_faults', ()))
        if mode != 'train':
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        num_classes = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
        if num_classes is not None:
            check_labels(samples, num_classes)
        for sample in samples:
            keep_largest(self.num_boxes, {image_name(sample): len(sample.gt_instances)}, int)
        keep_largest(self.faulty_boxes, find_faulty_boxes(samples), Counter.total)

    def after_train_epoch(self, runner: Runner) -> None:
        """Report what is new; the end of training ends the last epoch, whatever the loop."""
        self._report(runner)

    def after_val(self, runner: Runner) -> None:
        """Report what is new, and leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        self._report(runner)

    after_test = after_val

    def _start(self, runner: Runner, split: str) -> None:
        dataset = getattr(runner, f'{split}_dataloader').dataset
        self.faults.update((split, fault) for fault in known_faults(dataset))
        self._report(runner)
        if split != 'train':
            detectors = [part for part in runner.model.modules() if isinstance(part, BaseDetector)]
            self._handles = [part.register_forward_hook(drop_unreadable) for part in detectors]

    def _report(self, runner: Runner) -> None:
        faults: set[tuple[str, DataFault]] = set()
        num_boxes: dict[str, int] = {}
        faulty_boxes: dict[str, Counter] = {}
        for one in all_gather_object((self.faults, self.num_boxes, self.faulty_boxes)):
            faults |= one[0]
            keep_largest(num_boxes, one[1], int)
            keep_largest(faulty_boxes, one[2], Counter.total)
        num_faulty = sum(map(Counter.total, faulty_boxes.values()))
        is_new = len(faults) > self._num_reported[0], num_faulty > self._num_reported[1]
        self._num_reported = [len(faults), num_faulty]  # the same on all ranks
        if not any(is_new) or not is_main_process():
            return
        path = Path(runner.work_dir) / self.out_file
        of_boxes = [
            ('train', DataFault(kind, image, f'{number} of {num_boxes[image]} boxes'))
            for image, kinds in faulty_boxes.items()
            for kind, number in kinds.items()
        ]
        write_faults(path, sorted([*faults, *of_boxes]))
        if is_new[0]:
            found = [fault for _, fault in sorted(faults)]
            names = name_files((fault.path for fault in found), self.max_names)
            runner.logger.warning(
                f'{len(found)} faults in the data ({count_kinds(found)}): {names}; '
                f'all are listed in {path}'
            )
        if is_new[1]:
            total = sum(faulty_boxes.values(), Counter()).most_common()
            reasons = ', '.join(f'{number} {kind.removeprefix("boxes ")}' for kind, number in total)
            names = name_files(sorted(faulty_boxes), self.max_names)
            runner.logger.warning(
                f'{num_faulty} of {sum(num_boxes.values())} ground-truth boxes take no part in '
                f'training ({reasons}), in {len(faulty_boxes)} of {len(num_boxes)} images: '
                f'{names}; all are listed in {path}'
            )


def find_faulty_boxes(samples: Sequence[DetDataSample]) -> dict[str, Counter]:
    """How many boxes cannot be trained on, by image and kind; images without such are left out."""
    bboxes = torch.cat([get_box_tensor(sample.gt_instances.bboxes) for sample in samples])  # (N, 4)
    # Python repeats the few shapes faster than PyTorch's threads.
    owners = [sample for sample in samples for _ in range(len(sample.gt_instances))]
    img_shapes = torch.tensor([sample.img_shape[:2] for sample in owners]).view(-1, 2)
    faulty = ~valid_gt_mask(bboxes, img_shapes.unbind(1))  # (N,)
    found: dict[str, Counter] = {}
    for index in faulty.nonzero().flatten().tolist():
        kinds = found.setdefault(image_name(owners[index]), Counter())
        kinds[_kind_of(bboxes[index], img_shapes[index])] += 1
    return found


def _kind_of(bbox: Tensor, img_shape: Tensor) -> str:
    """Why a box (4,) xyxy in an image of (h, w) that cannot be trained on cannot.

    Pipelines clip boxes: of one that was outside a line along the image's edge is left.
    """
    if not bbox.isfinite().all():
        return Kind.NOT_FINITE
    size, edge = bbox[2:] - bbox[:2], img_shape.flip(0)
    clipped = (size == 0) & ((bbox[:2] == 0) | (bbox[:2] == edge))
    if clipped.any():
        return Kind.OUTSIDE
    if (size < SMALLEST_SIDE).any():
        return Kind.NO_AREA
    return Kind.TOO_LARGE if (size > LARGEST_SIDE).any() else Kind.OUTSIDE


def keep_largest(known: dict, new: dict, size: Callable[..., int]) -> None:
    """Add the items of ``new``; of two values with one key the one of the larger size stays."""
    for key, value in new.items():
        known[key] = max(known.get(key, value), value, key=size)


def drop_unreadable(model: BaseDetector, inputs: tuple, outputs: object) -> None:
    """A forward hook: remove the detections of samples that are marked ``unreadable``."""
    for sample in outputs if isinstance(outputs, (list, tuple)) else ():  # a tuple: of a view
        if isinstance(sample, DetDataSample) and sample.get('unreadable'):
            sample.pred_instances = sample.pred_instances[:0]


def check_labels(samples: Sequence[DetDataSample], num_classes: int) -> None:
    """Refuse labels, (n,) int64 on the CPU of each image, that are not 0 to ``num_classes`` - 1.

    Raises:
        DataRefusedError: If there are such; it names the first image with one.
    """
    for sample in samples:
        for label in sample.gt_instances.labels.tolist():
            if not 0 <= label < num_classes:
                background = f' ({label} is the background)' if label == num_classes else ''
                raise DataRefusedError(
                    f'{image_name(sample)}: a ground-truth box has the label {label}, but '
                    f'model.bbox_head.num_classes={num_classes} takes labels from 0 to '
                    f'{num_classes - 1}{background}: correct one of them'
                )
