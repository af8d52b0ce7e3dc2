"""Images to measure on: drawn JPEG files like photographs in size and texture, as a VOC tree."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

# A choice of VOC's.
CLASSES = ['bird', 'boat', 'bus', 'car', 'cat', 'chair', 'dog', 'horse', 'person', 'train']
SIZES = ((500, 375), (640, 480))  # width, height
MAX_OBJECTS = 12
JPEG_QUALITY = 92  # with this texture 60 to 110 kB at 640 x 480, as photographs of VOC and COCO


def write_images(root: Path, per_size: int = 40, seed: int = 0) -> Path:
    """Draw ``per_size`` images of each size with 1 to 12 boxes, as a VOC2007 in ``root``."""
    folder = root / 'VOC2007'
    for path in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (folder / path).mkdir(parents=True)
    names: list[str] = []
    for size in SIZES:
        for i in range(per_size):
            names.append(f'{len(names):06d}')
            rng = np.random.default_rng((seed, *size, i))
            image, labels, boxes = draw_image(rng, *size, num_objects=1 + i % MAX_OBJECTS)
            jpeg = cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1]
            (folder / 'JPEGImages' / f'{names[-1]}.jpg').write_bytes(jpeg.tobytes())
            annotation = voc_annotation(size, labels, boxes)
            (folder / 'Annotations' / f'{names[-1]}.xml').write_text(annotation)
    (folder / 'ImageSets/Main/trainval.txt').write_text('\n'.join(names))
    return root


def draw_image(
    rng: np.random.Generator, width: int, height: int, num_objects: int
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """An image (H, W, 3) uint8 with its classes and boxes (G, 4) xyxy in whole pixels."""
    detail = rng.uniform(0.5, 1.0)  # strength of the fine structure, which decides a JPEG's size
    image = texture(rng, width, height, detail)
    boxes = random_boxes(rng, num_objects, width, height)
    for x1, y1, x2, y2 in boxes.tolist():
        size = w, h = x2 - x1, y2 - y1
        mask = np.ones((h, w), np.uint8)
        if rng.random() < 0.5:  # an ellipse rather than a rectangle
            mask[:] = 0
            cv2.ellipse(mask, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, 1, -1)
        place = image[y1:y2, x1:x2]
        place[:] = np.where(mask[..., None] > 0, texture(rng, *size, detail), place)
    image += 6 * detail * rng.standard_normal((height, width, 1), np.float32)  # sensor noise
    labels = rng.choice(CLASSES, num_objects).tolist()
    return np.clip(image, 0, 255).astype(np.uint8), labels, boxes


def random_boxes(rng: np.random.Generator, count: int, width: int, height: int) -> np.ndarray:
    """Boxes (count, 4) xyxy inside an image, of many sizes and shapes; sides >= 12 pixels."""
    side = min(width, height) * np.exp(rng.uniform(np.log(0.07), np.log(0.7), count))
    stretch = np.exp(rng.uniform(-0.6, 0.6, count))
    size = np.stack([side * stretch, side / stretch], axis=1)
    size = np.clip(size, 12, (0.98 * width, 0.98 * height))
    corner = rng.uniform(0, 1, (count, 2)) * ((width - 1, height - 1) - size)
    return np.concatenate([corner, corner + size], axis=1).astype(np.int64)


def texture(rng: np.random.Generator, width: int, height: int, detail: float) -> np.ndarray:
    """Noise at all scales, stronger at the coarser ones as in photographs: (H, W, 3) float32."""
    image = np.full((height, width, 3), rng.uniform(60, 190, 3), np.float32)
    for scale, strength in ((2, 7 * detail), (4, 10 * detail), (8, 10), (32, 14), (128, 24)):
        grid = (height // scale + 2, width // scale + 2)
        grey, color = (rng.standard_normal((*grid, n), np.float32) for n in (1, 3))
        image += cv2.resize(strength * (grey + color / 4), (width, height))
    return image


def voc_annotation(size: tuple[int, int], labels: list[str], boxes: np.ndarray) -> str:
    """A VOC annotation in XML; its coordinates are 1-based."""
    objects = [
        f'<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin>'
        f'<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>'
        for label, (x1, y1, x2, y2) in zip(labels, (boxes + 1).tolist())
    ]
    shape = '<size><width>{}</width><height>{}</height><depth>3</depth></size>'.format(*size)
    return f'<annotation>{shape}{"".join(objects)}</annotation>'
