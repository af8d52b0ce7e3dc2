"""A synthetic data set: drawn shapes on textured backgrounds, stored as a Pascal VOC tree.

A detector learns it in minutes on a CPU, yet not by colour alone: shapes of very different sizes
are rotated, overlap and leave the image, on backgrounds with edges and noise of their own.
"""

from __future__ import annotations

import colorsys
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

CLASSES = ('circle', 'square', 'triangle', 'star', 'cross')
IMAGE_SIZES = ((320, 240), (320, 256), (352, 264), (360, 270), (400, 300), (400, 320))
SIZE_RANGE = (0.2, 0.6)  # longest side of a shape over the shorter side of its image
MAX_SHAPES = 6
MIN_VISIBLE = 0.4  # no shape may show less of its area than this
DIFFICULT_BELOW = 0.55  # one that shows less than this is marked difficult
RECIPE_FILE = 'shapes.json'  # says with which arguments a tree was drawn


class Shape(NamedTuple):
    """A drawn shape; ``box`` is (x1, y1, x2, y2) in pixels from 0, both ends included."""

    name: str
    box: tuple[int, int, int, int]
    truncated: bool
    difficult: bool


def write_voc_shapes(
    out: str | Path,
    num_train: int = 600,
    num_test: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw a VOC tree: ``Annotations``, ``JPEGImages`` and ``ImageSets/Main`` under ``out``.

    Image i depends only on ``seed`` and i; the same versions of NumPy and OpenCV write the same
    bytes. The first ``num_train`` images are ``trainval`` (every fifth is ``val``, the others
    ``train``), the next ``num_test`` are ``test``. Files of the same names are replaced, others are
    kept. The lists are written last: a tree that has them is complete.

    ``progress(done, total)`` is called after each image. Returns ``out`` as a Path.

    Raises:
        ValueError: A number of images is negative.
    """
    if num_train < 0 or num_test < 0:
        raise ValueError(f'numbers of images must be >= 0, got {num_train} and {num_test}')
    out = Path(out)
    lists = out / 'ImageSets' / 'Main'
    for folder in (out / 'Annotations', out / 'JPEGImages', lists):
        folder.mkdir(parents=True, exist_ok=True)
    for split in ('train', 'val', 'trainval', 'test'):
        (lists / f'{split}.txt').unlink(missing_ok=True)
    recipe = dict(num_train=num_train, num_test=num_test, seed=seed, size_range=list(SIZE_RANGE))
    (out / RECIPE_FILE).write_text(json.dumps(recipe) + '\n')

    names = [f'{number:06d}' for number in range(1, num_train + num_test + 1)]
    for i, name in enumerate(names):
        rng = np.random.default_rng((seed, i))
        image, shapes = draw_image(rng)
        quality = (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(75, 96)))
        jpeg = cv2.imencode('.jpg', image, quality)[1]
        (out / 'JPEGImages' / f'{name}.jpg').write_bytes(jpeg.tobytes())
        (out / 'Annotations' / f'{name}.xml').write_bytes(_to_xml(name, image.shape, shapes))
        if progress is not None:
            progress(i + 1, len(names))

    trainval, test = names[:num_train], names[num_train:]
    train = [name for i, name in enumerate(trainval) if i % 5 != 4]
    splits = dict(train=train, val=trainval[4::5], trainval=trainval, test=test)
    for split, members in splits.items():
        (lists / f'{split}.txt').write_text(''.join(f'{name}\n' for name in members))
    return out


def draw_image(rng: np.random.Generator) -> tuple[np.ndarray, list[Shape]]:
    """Draw one image of 1 to ``MAX_SHAPES`` shapes, (H, W, 3) uint8 in OpenCV's BGR order.

    Its shapes are returned from back to front. A box spans those pixels of its shape that show, as
    VOC's annotators were asked to draw it.
    """
    width, height = IMAGE_SIZES[rng.integers(len(IMAGE_SIZES))]
    image = _background(rng, height, width)  # (3, H, W): NumPy is faster so than with (H, W, 3)
    owner = np.full((height, width), -1, np.int8)  # index of the shape that a pixel shows
    drawn: list[tuple[str, np.ndarray]] = []  # names and masks of the shapes
    for _ in range(rng.integers(1, MAX_SHAPES + 1)):
        for _ in range(20):  # until a place is found where it hides no other shape
            name = CLASSES[rng.integers(len(CLASSES))]
            log_size = rng.uniform(*np.log(SIZE_RANGE))
            sprite = _sprite(rng, name, np.exp(log_size) * min(height, width))
            x, y = _place(rng, sprite, height, width)
            mask = sprite.max(axis=0) >= 0.5
            candidate = owner.copy()
            inside, part = _clip(height, width, mask.shape, x, y)
            candidate[inside][mask[part]] = len(drawn)
            masks = [*(other for _, other in drawn), mask]
            shown = [(candidate == i).sum() / m.sum() for i, m in enumerate(masks)]
            if min(shown) >= MIN_VISIBLE:
                _paint(rng, image, sprite, x, y)
                owner = candidate
                drawn.append((name, mask))
                break
    shapes = [_describe(name, mask, owner == i) for i, (name, mask) in enumerate(drawn)]
    return _photograph(rng, image), shapes


def _describe(name: str, mask: np.ndarray, visible: np.ndarray) -> Shape:
    """Box and flags of a shape from its whole (h, w) and its visible (H, W) pixels."""
    x, y, width, height = cv2.boundingRect(visible.astype(np.uint8))
    _, _, whole_width, whole_height = cv2.boundingRect(mask.astype(np.uint8))
    truncated = width < whole_width or height < whole_height
    difficult = visible.sum() < DIFFICULT_BELOW * mask.sum()
    return Shape(name, (x, y, x + width - 1, y + height - 1), truncated, bool(difficult))


def _outline(rng: np.random.Generator, name: str) -> np.ndarray:
    """Corners (n, 2) of a shape about the origin, in no particular scale."""
    if name == 'cross':
        arm = rng.uniform(0.26, 0.4)
        corners = [np.array([(1, -arm), (1, arm), (arm, arm)])]
        for _ in range(3):
            corners.append(_rotate(corners[-1], np.pi / 2))
        return np.concatenate(corners)
    count = dict(circle=64, square=4, triangle=3, star=10)[name]
    angles, radii = np.arange(count) * 2 * np.pi / count, np.ones(count)
    if name == 'star':
        radii[1::2] = rng.uniform(0.4, 0.52)
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _sprite(rng: np.random.Generator, name: str, size: float) -> np.ndarray:
    """A shape turned at random, its longest side ``size`` pixels, with a margin around.

    Returns:
        How far its fill and its edge cover each pixel, (2, h, w) float32 in 0..1.
    """
    turn, tilt = rng.uniform(0, 2 * np.pi, size=2)
    corners = _rotate(_outline(rng, name), turn)
    corners = _rotate(corners * (1, rng.uniform(0.8, 1)), tilt)  # as if seen slightly askew
    corners -= corners.min(axis=0)
    corners *= size / corners.max()
    margin = 3 + int(size / 8)  # for the edge and the shadow
    corners += margin
    width, height = np.ceil(corners.max(axis=0)).astype(int) + margin
    fill, edge = np.zeros((2, height, width), np.uint8)
    bits = 4  # of a pixel's fraction, OpenCV's fixed-point coordinates
    points = [np.round(corners * 2**bits).astype(np.int32)]
    cv2.fillPoly(fill, points, 255, cv2.LINE_AA, bits)
    thickness = int(rng.integers(0, 2 + int(size) // 24))  # 0: no edge
    if thickness:
        cv2.polylines(edge, points, True, 255, thickness, cv2.LINE_AA, bits)
    return np.stack([fill, edge]).astype(np.float32) / 255


def _rotate(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([(cos, sin), (-sin, cos)])


def _place(rng: np.random.Generator, sprite: np.ndarray, height: int, width: int) -> list[int]:
    """Left and top of a sprite; one in five may leave the image by up to 40 % of its side."""
    overhang = 0.4 if rng.random() < 0.2 else 0.0
    corner = []
    for side, room in zip(sprite.shape[:0:-1], (width, height)):
        first, last = sorted((int(-overhang * side), int(room - (1 - overhang) * side)))
        corner.append(int(rng.integers(first, last + 1)))
    return corner


def _clip(
    height: int, width: int, shape: Sequence[int], x: int, y: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the image and of a sprite placed at (x, y) where the two overlap."""
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + shape[0], height), min(x + shape[1], width)
    inside = (slice(top, bottom), slice(left, right))
    return inside, (slice(top - y, bottom - y), slice(left - x, right - x))


def _paint(rng: np.random.Generator, image: np.ndarray, sprite: np.ndarray, x: int, y: int) -> None:
    """Blend a sprite with its shadow and its edge into the image, (3, H, W) float32 in 0..255."""
    height, width = sprite.shape[1:]
    color = _color(rng, saturation=(0.4, 0.85), value=(0.6, 1.0))
    edge_color = color * rng.uniform(0.3, 0.7) if rng.random() < 0.6 else 255 - 0.2 * color
    rows, columns = (axis.astype(np.float32) for axis in np.ogrid[0:height, 0:width])
    light = np.float32(1.12) - 0.12 * (rows / height + columns / width)  # from the upper left
    if rng.random() < 0.25:
        light *= 1 + 0.15 * _stripes(rng, rows, columns, max(6, width / 6))
    offset = max(1, width // 24)
    shadow = np.roll(sprite.max(axis=0), (offset, offset), axis=(0, 1))
    shadow = cv2.GaussianBlur(shadow, (0, 0), 1 + width / 40) * np.float32(rng.uniform(0, 0.5))

    inside, part = _clip(image.shape[1], image.shape[2], (height, width), x, y)
    patch = image[:, inside[0], inside[1]]
    patch *= 1 - shadow[part]
    patch += sprite[0][part] * (color * light[part] - patch)
    patch += sprite[1][part] * (edge_color - patch)


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A muted gradient with a pattern, noise at several scales and lines: (3, H, W) float32."""
    rows, columns = (axis.astype(np.float32) for axis in np.ogrid[0:height, 0:width])
    first, second, third = (_color(rng, (0.05, 0.4), (0.35, 0.95)) for _ in range(3))
    angle = rng.uniform(0, 2 * np.pi)
    ramp = columns * np.float32(np.cos(angle) / width) + rows * np.float32(np.sin(angle) / height)
    ramp = (ramp - ramp.min()) / np.ptp(ramp)
    image = first + (second - first) * ramp

    kind = rng.choice(['plain', 'stripes', 'checkers'])
    if kind != 'plain':
        period = rng.uniform(12, 70)
        pattern = _stripes(rng, rows, columns, period)
        if kind == 'checkers':
            pattern *= _stripes(rng, rows, columns, period)
        image += (third - image) * (np.float32(rng.uniform(0.05, 0.25)) * (1 + pattern))
    for scale in (1, 6, 30):  # pixels a blot
        grid = (height // scale + 2, width // scale + 2)
        noise = rng.standard_normal(grid, np.float32) * np.float32(rng.uniform(1, 9))
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    lines = _scratches(rng, height, width)
    image *= 1 + np.float32(rng.uniform(-0.6, 0.6)) * lines  # darker or lighter than the rest
    return image


def _scratches(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Up to 8 long thin lines of different strengths, (H, W) float32 in 0..1."""
    lines = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(0, 9)):
        ends = rng.uniform(-0.2, 1.2, (2, 2)) * (width, height)
        start, end = ends.astype(int).tolist()
        strength, thickness = int(rng.integers(60, 200)), int(rng.integers(1, 4))
        cv2.line(lines, start, end, strength, thickness, cv2.LINE_AA)
    return lines.astype(np.float32) / 255


def _stripes(
    rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray, period: float
) -> np.ndarray:
    """Soft-edged stripes across a random direction, (h, w) in -1..1; ``period`` in pixels."""
    angle, phase = rng.uniform(0, 2 * np.pi, size=2)
    along = 2 * np.pi / period * np.array([np.cos(angle), np.sin(angle)], np.float32)
    wave = np.sin(columns * along[0] + rows * along[1] + np.float32(phase))
    return np.clip(wave * np.float32(period / 6), -1, 1)  # soft over a pixel or two


def _color(rng: np.random.Generator, saturation: tuple, value: tuple) -> np.ndarray:
    """A random hue as BGR, (3, 1, 1) float32 in 0..255."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb[::-1], np.float32)[:, None, None] * 255


def _photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Slight blur and sensor noise; (3, H, W) float32 to (H, W, 3) uint8."""
    image = cv2.merge(list(image))
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9))
    noise = rng.standard_normal(image.shape[:2], np.float32) * np.float32(rng.uniform(0, 5))
    return cv2.add(image, cv2.merge([noise] * 3), dtype=cv2.CV_8U)


def _to_xml(name: str, image_shape: tuple, shapes: list[Shape]) -> bytes:
    """A VOC annotation: 1-based coordinates, both ends inside."""
    height, width, depth = image_shape
    root = ET.Element('annotation')
    source = dict(database='drawn shapes', annotation='PASCAL VOC2007', image='drawn')
    _add(root, folder='shapes', filename=f'{name}.jpg', source=source)
    _add(root, size=dict(width=width, height=height, depth=depth), segmented=0)
    for shape in shapes:
        flags = dict(truncated=int(shape.truncated), difficult=int(shape.difficult))
        corners = dict(zip(('xmin', 'ymin', 'xmax', 'ymax'), (c + 1 for c in shape.box)))
        _add(root, object=dict(name=shape.name, pose='Unspecified', **flags, bndbox=corners))
    ET.indent(root, '\t')
    return ET.tostring(root) + b'\n'


def _add(parent: ET.Element, **fields: object) -> None:
    """Add a child for each field, whose value is its text or the fields below it."""
    for tag, value in fields.items():
        child = ET.SubElement(parent, tag)
        if isinstance(value, dict):
            _add(child, **value)
        else:
            child.text = str(value)
