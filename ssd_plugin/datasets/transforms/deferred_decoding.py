"""Pipelines that leave the decoding of large JPEG files to the transform which resizes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.image import imfrombytes, rescale_size
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations, Resize
from mmdet.registry import TRANSFORMS
from mmengine.fileio import get

from ssd_plugin.datasets.large_images import LARGE, LargeJpeg, decode, resize_by_area
from ssd_plugin.datasets.transforms.ssd_augment import SSDAugment
from ssd_plugin.datasets.transforms.train_on_difficult import TrainOnDifficult

Step = Any  # of a pipeline: a config, or a transform that is built


class LoadOrDefer(LoadImageFromFile):
    """``LoadImageFromFile`` that puts a :class:`LargeJpeg` in place of a large image."""

    def transform(self, results: dict) -> dict:
        """Load an image, or the file of a large one."""
        content = get(results['img_path'], backend_args=self.backend_args)
        image = LargeJpeg.read(content) or imfrombytes(content)
        assert image is not None, f'failed to load image: {results["img_path"]}'
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results


class ResizeLargeByArea(Resize):
    """MMDetection's ``Resize``, which shrinks images of more than 4 megapixels by area.

    Linear interpolation looks at 2 x 2 pixels only, and of the others lets fine structures alias.
    """

    def _resize_img(self, results: dict) -> None:
        image = results['img']
        height, width = image.shape[:2]
        size = tuple(results['scale'])
        if self.keep_ratio:
            size = rescale_size((width, height), size)
        if height * width <= LARGE or size[0] > width or size[1] > height:
            results['img'], _ = decode(image, scale=1)
            super()._resize_img(results)
            return
        results['img'] = resize_by_area(image, size)
        results['img_shape'] = size[::-1]
        results['scale_factor'] = size[0] / width, size[1] / height
        results['keep_ratio'] = self.keep_ratio


# Transforms between loading and resizing that don't look at the pixels.
PIXELS_UNSEEN = LoadAnnotations, TrainOnDifficult
# The arguments with which loading and resizing can be replaced.
LOAD_ARGUMENTS = {'type', 'backend_args'}
RESIZE_ARGUMENTS = {'type', 'scale', 'scale_factor', 'keep_ratio', 'clip_object_border'}


def defer_decoding(pipeline: Sequence[Step]) -> list[Step]:
    """A pipeline in which large JPEGs are decoded with no more resolution than it needs.

    That is done where ``SSDAugment`` or ``Resize`` is the first transform that uses the pixels, and
    loading and resizing have their default decoder and interpolation. Other pipelines stay as they
    are.
    """
    steps, classes = list(pipeline), [_class_of(step) for step in pipeline]
    if LoadImageFromFile not in classes:
        return steps
    load = classes.index(LoadImageFromFile)
    looking = (i for i in range(load + 1, len(steps)) if classes[i] not in PIXELS_UNSEEN)
    use = next(looking, load)
    if not set(steps[load]) <= LOAD_ARGUMENTS:
        return steps
    if classes[use] is Resize and set(steps[use]) <= RESIZE_ARGUMENTS:
        steps[use] = dict(steps[use], type=ResizeLargeByArea)
    elif classes[use] is not SSDAugment:
        return steps
    steps[load] = dict(steps[load], type=LoadOrDefer)
    return steps


def _class_of(step: Step) -> type | None:
    """The class of a transform that is still to be built."""
    if not isinstance(step, Mapping):
        return None
    return TRANSFORMS.get(step['type']) if isinstance(step['type'], str) else step['type']
