"""SSD's training augmentation, from a decoded image to the network input in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from math import inf
from numbers import Real
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import BaseBoxes
from torch.nn.modules.utils import _pair

from ssd_plugin.datasets.large_images import LargeJpeg, decode
from ssd_plugin.datasets.transforms.crop_windows import draw_window
from ssd_plugin.datasets.transforms.pixels import distort, resize, visible_span

PROB = 0.5  # of each distortion and of the expansion
INTERPOLATIONS = (
    cv2.INTER_LINEAR,
    cv2.INTER_AREA,
    cv2.INTER_NEAREST,
    cv2.INTER_CUBIC,
    cv2.INTER_LANCZOS4,
)
# Other annotations that MMDetection keeps of an image: they would no longer fit it.
NOT_SUPPORTED = ('gt_masks', 'gt_seg_map', 'gt_keypoints', 'proposals')


class Plan(NamedTuple):
    """All random choices for one image. Pixels are whole pixels of the original."""

    distortion: tuple[int, float, float, float]  # brightness, ..., hue: the arguments of `distort`
    canvas: tuple[int, int]  # (width, height), at least the image's
    offset: tuple[int, int]  # (x, y) of the image's top left corner on the canvas
    window: tuple[int, int, int, int]  # xyxy on the canvas
    interpolation: int  # OpenCV's constant
    flip: bool


@TRANSFORMS.register_module()
class SSDAugment(BaseTransform):
    """The augmentation that SSD is trained with (paper, section 2.2), with the resize to its input.

    1. Distort the image: brightness, contrast, saturation, hue, in that order, each with a
       probability of 0.5. Grey levels stay within 0 to 255 after each.
    2. With a probability of 0.5, expand: place the image somewhere on a canvas of the mean
       colour, whose sides are both 1 to 4 times as long.
    3. Crop a window. Seven samplers offer one: the whole canvas; windows with which at least one
       box reaches an IoU of 0.1, 0.3, 0.5, 0.7 or 0.9 (the first of 50 drawn, or none); any window.
       One of the offers is taken. Boxes whose centre lies in the window, its border included, stay,
       clipped to it.
    4. Resize to the input size, ignoring the aspect, with an interpolation drawn from linear,
       area, nearest, cubic and Lanczos.
    5. Mirror with a probability of 0.5.

    :meth:`draw` makes all random choices before a pixel is touched; then only the visible part of
    the image is resized and distorted. The numbers come from NumPy's global state, which
    ``ResumableRunner`` seeds for each sample, and MMEngine's runner in each worker of a loader.

    Boxes that are not trained on are kept, and have no influence on the window:

    - Ignored boxes follow the image, but no window is taken for their sake. (MMDetection's crop
      counts them.)
    - All boxes are first clipped to the image. A box without area, which is also what remains of
      one outside the image, then stays or goes by its centre like others, and stays without area. A
      non-finite box always stays, as NaN. So ``DataFaultHook`` still sees them.
    - A box with area keeps some of it: its centre lies in the window.

    Of a :class:`LargeJpeg`, which the package's data sets load in place of large images, no more
    resolution is decoded than the window needs. Where that is less than all, the interpolation is
    area; whatever is drawn stays the same.

    Required keys: ``img``, (h, w, 3) uint8; ``gt_bboxes``, boxes or a float array (n, 4), xyxy in
    pixels. Optional: ``gt_bboxes_labels``, ``gt_ignore_flags``, (n,).

    Modified keys: those four and ``img_shape``. In memory the new ``img`` is three planes, as the
    network takes it: ``PackDetInputs`` then has nothing to copy.

    Added keys: ``scale_factor``, (w, h) from the window to the output; ``flip`` and
    ``flip_direction`` as ``RandomFlip`` has them.

    Args:
        scale: Size of the output in pixels, a side or (w, h).
        mean: Colour of the canvas.
        to_rgb: Whether ``mean`` is in RGB order, the image being BGR, as in ``Expand``.
        brightness_delta: Most grey levels that are added or subtracted.
        contrast_range: Smallest and largest factor.
        saturation_range: Smallest and largest factor.
        hue_delta: Largest rotation of the hue, in degrees.
        ratio_range: Smallest and largest ratio of the canvas's sides to the image's.
        min_ious: The IoU that each sampler with a condition requires.
        min_crop_size: Smallest scale of a window, the square root of its fraction of the canvas; 1
            crops nothing.
        flip_prob: Probability of the mirror.

    Raises:
        ValueError: If an argument is out of its range; in :meth:`transform`, if the image is
            not 8-bit colour, or comes with masks or other annotations than boxes.
    """

    def __init__(
        self,
        scale: int | tuple[int, int],
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        to_rgb: bool = True,
        brightness_delta: float = 32,
        contrast_range: tuple[float, float] = (0.5, 1.5),
        saturation_range: tuple[float, float] = (0.5, 1.5),
        hue_delta: float = 18,
        ratio_range: tuple[float, float] = (1, 4),
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size: float = 0.3,
        flip_prob: float = 0.5,
    ) -> None:
        self.scale = _pair(scale)
        self.mean, self.to_rgb = mean, to_rgb
        self.brightness_delta, self.hue_delta = brightness_delta, hue_delta
        self.contrast_range, self.saturation_range = contrast_range, saturation_range
        self.ratio_range = ratio_range
        self.min_ious, self.min_crop_size = min_ious, min_crop_size
        self.flip_prob = flip_prob
        self._check_arguments()
        width, height = self.scale
        bgr = mean[::-1] if to_rgb else mean
        # Made once: copying is faster than filling.
        self._fill = np.empty((3, height, width), np.uint8)
        self._fill[:] = np.rint(bgr)[:, None, None]

    def transform(self, results: dict) -> dict:
        """Augment one image and its boxes; see the class."""
        image = results['img']
        self._check_image(image, results)
        height, width = image.shape[:2]
        given = results['gt_bboxes']
        array = given.tensor.numpy() if isinstance(given, BaseBoxes) else given
        bboxes = clean(array, width, height)
        trained_on = bboxes
        if 'gt_ignore_flags' in results:
            trained_on = bboxes[~results['gt_ignore_flags'].astype(bool)]

        # NumPy's global state itself: seeding a generator from it would only take time.
        state = np.random.mtrand.get_bit_generator()
        generator = np.random.Generator(state)
        plan = self.draw(generator, (height, width), trained_on)
        results['img'] = self.apply_to_image(image, plan)
        bboxes, kept = self.apply_to_bboxes(bboxes, plan)
        bboxes = bboxes.astype(array.dtype)
        if isinstance(given, BaseBoxes):
            bboxes = type(given)(torch.from_numpy(bboxes), clone=False)
        results['gt_bboxes'] = bboxes
        for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
            if key in results:
                results[key] = results[key][kept]
        results.update(img_shape=self.scale[::-1], scale_factor=self._scale_factor(plan))
        results.update(flip=plan.flip, flip_direction='horizontal' if plan.flip else None)
        return results

    def draw(
        self, generator: np.random.Generator, img_shape: tuple[int, int], bboxes: np.ndarray
    ) -> Plan:
        """Make all random choices for an image (h, w); the same state gives the same plan.

        A window may be taken for the boxes (n, 4), xyxy in pixels.
        """
        distortion = (
            round(_maybe(generator, (-self.brightness_delta, self.brightness_delta), 0)),
            _maybe(generator, self.contrast_range, 1),
            _maybe(generator, self.saturation_range, 1),
            _maybe(generator, (-self.hue_delta, self.hue_delta), 0),
        )
        height, width = img_shape
        ratio = _maybe(generator, self.ratio_range, 1)
        canvas = round(width * ratio), round(height * ratio)
        offset = (
            int(generator.integers(canvas[0] - width, endpoint=True)),
            int(generator.integers(canvas[1] - height, endpoint=True)),
        )
        on_canvas = (bboxes + offset * 2) / (canvas * 2)
        shares = draw_window(generator, on_canvas, self.min_ious, self.min_crop_size)
        interpolation = INTERPOLATIONS[generator.integers(len(INTERPOLATIONS))]
        flip = bool(generator.random() < self.flip_prob)
        return Plan(distortion, canvas, offset, to_pixels(shares, canvas), interpolation, flip)

    def apply_to_image(self, image: np.ndarray | LargeJpeg, plan: Plan) -> np.ndarray:
        """The output image (h, w, 3) uint8 of an image (h, w, 3) uint8, which is not changed."""
        height, width = image.shape[:2]
        x1, y1, x2, y2 = plan.window
        fx, fy = self._scale_factor(plan)
        image, divisor = decode(image, max(fx, fy))
        interpolation = plan.interpolation if divisor == 1 else cv2.INTER_AREA
        across = visible_span(x1, x2, plan.offset[0], width, self.scale[0], divisor)
        down = visible_span(y1, y2, plan.offset[1], height, self.scale[1], divisor)
        output = self._fill.copy()  # (3, h, w)
        if across and down:
            part = image[down.source, across.source]
            # Colours are distorted where there are fewer pixels, before or after resizing.
            enlarges = part.shape[0] * part.shape[1] < output[0, down.target, across.target].size
            if enlarges:
                part = distort(part, *plan.distortion)
            part = resize(part, across, down, (fx * divisor, fy * divisor), interpolation)
            if not enlarges:
                part = distort(part, *plan.distortion)
            columns = across.target
            if plan.flip:
                part = cv2.flip(part, 1)
                columns = slice(self.scale[0] - columns.stop, self.scale[0] - columns.start)
            cv2.split(part, list(output[:, down.target, columns]))  # writes into the output
        return output.transpose(1, 2, 0)

    def apply_to_bboxes(self, bboxes: np.ndarray, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
        """The boxes that stay, (m, 4) xyxy in pixels of the output, and which they are, bool (n,).

        They are given as (n, 4) xyxy in pixels of the image, from :func:`clean`.
        """
        corners = bboxes.reshape(-1, 2, 2) + plan.offset  # (n, 2, 2), on the canvas
        low, high = np.array(plan.window).reshape(2, 2)
        centres = (corners[:, 0] + corners[:, 1]) / 2
        inside = ((centres >= low) & (centres <= high)).all(1)
        kept = inside | np.isnan(bboxes[:, 0])
        corners = np.minimum(np.maximum(corners[kept], low), high) - low
        bboxes = (corners * self._scale_factor(plan)).reshape(-1, 4)
        if plan.flip:
            bboxes[:, 0::2] = self.scale[0] - bboxes[:, 2::-2]
        return bboxes, kept

    def _scale_factor(self, plan: Plan) -> tuple[float, float]:
        """(w, h), from pixels of the window to pixels of the output."""
        x1, y1, x2, y2 = plan.window
        return self.scale[0] / (x2 - x1), self.scale[1] / (y2 - y1)

    def _check_arguments(self) -> None:
        for name, holds, rule in (
            ('scale', lambda v: len(v) == 2 and _all_in(v, 1, inf, int), 'whole and positive'),
            ('mean', lambda v: len(v) == 3 and _all_in(v, 0, 255), 'three numbers from 0 to 255'),
            ('brightness_delta', lambda v: 0 <= v <= 255, 'from 0 to 255'),
            ('contrast_range', lambda v: _is_range(v, 0), 'two factors, the lesser first'),
            ('saturation_range', lambda v: _is_range(v, 0), 'two factors, the lesser first'),
            ('hue_delta', lambda v: 0 <= v <= 180, 'from 0 to 180 degrees'),
            ('ratio_range', lambda v: _is_range(v, 1), 'two ratios from 1, the lesser first'),
            ('min_ious', lambda v: 0 not in v and _all_in(v, 0, 1), 'above 0 and at most 1'),
            ('min_crop_size', lambda v: 0 < v <= 1, 'above 0 and at most 1'),
            ('flip_prob', lambda v: 0 <= v <= 1, 'from 0 to 1'),
        ):
            value = getattr(self, name)
            try:
                valid = holds(value)
            except TypeError:  # None, or one number where there are to be several
                valid = False
            if not valid:
                raise ValueError(f'SSDAugment: {name} must be {rule}, got {value}')

    def _check_image(self, image: np.ndarray | LargeJpeg, results: dict) -> None:
        if image.shape[2:] != (3,) or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                'SSDAugment takes colour images (h, w, 3) of uint8, as LoadImageFromFile reads '
                f'them by default; got {image.shape} {image.dtype}: {results.get("img_path")}'
            )
        for key in NOT_SUPPORTED:
            if key in results:
                raise ValueError(f'SSDAugment moves boxes, and cannot move {key}')

    def __repr__(self) -> str:
        names = list(signature(type(self)).parameters)
        return f'{type(self).__name__}({", ".join(f"{n}={getattr(self, n)}" for n in names)})'


def to_pixels(shares: np.ndarray, canvas: tuple[int, int]) -> tuple[int, int, int, int]:
    """A window (4,) xyxy, as fractions of a canvas (w, h), in whole pixels: at least one."""
    x1, y1, x2, y2 = np.rint(shares * (canvas * 2)).astype(int).tolist()
    x1, y1 = min(x1, canvas[0] - 1), min(y1, canvas[1] - 1)
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def clean(bboxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes (n, 4) xyxy clipped to their image, as float64; NaN all over if not finite."""
    bboxes = bboxes.astype(np.float64)
    bboxes[~np.isfinite(bboxes).all(1)] = np.nan
    return np.minimum(np.maximum(bboxes, 0), (width, height) * 2)


def _maybe(generator: np.random.Generator, limits: tuple[float, float], otherwise: float) -> float:
    """A number between the limits, or, with probability 1 - `PROB`, the neutral one."""
    return generator.uniform(*limits) if generator.random() < PROB else otherwise


def _all_in(values: Sequence[float], least: float, most: float, kind: type = Real) -> bool:
    return all(isinstance(value, kind) and least <= value <= most for value in values)


def _is_range(values: Sequence[float], least: float) -> bool:
    return len(values) == 2 and least <= values[0] <= values[1] < inf
