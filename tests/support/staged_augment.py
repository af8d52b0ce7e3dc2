"""SSD's augmentation written down once more, one step after another: what SSDAugment must equal."""

import cv2
import numpy as np

from tests.support.helpers import iou

MEAN = (104, 116, 124)  # BGR, rounded


def distorted(source, brightness, contrast, saturation, hue):
    image = np.clip(source.astype(np.float32) + brightness, 0, 255)
    image = np.clip(image * np.float32(contrast), 0, 255)
    hsv = cv2.cvtColor(image / 255, cv2.COLOR_BGR2HSV)
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
    hsv[..., 0] = (hsv[..., 0] + hue) % 360
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR) * 255


def augmented_image(source, plan, size):
    image = distorted(source, *plan.distortion)
    (x, y), (x1, y1, x2, y2) = plan.offset, plan.window
    canvas = np.empty((plan.canvas[1], plan.canvas[0], 3), np.float32)
    canvas[:] = MEAN
    canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    image = cv2.resize(canvas[y1:y2, x1:x2], size, interpolation=plan.interpolation)
    return np.clip(image[:, ::-1] if plan.flip else image, 0, 255)


def moved_boxes(boxes, plan, size):
    """{index: box} of the objects whose centre lies in the window."""
    staged = {}
    (dx, dy), (left, top, right, bottom) = plan.offset, plan.window
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        x1, y1, x2, y2 = x1 + dx, y1 + dy, x2 + dx, y2 + dy
        if left <= (x1 + x2) / 2 <= right and top <= (y1 + y2) / 2 <= bottom:
            x1, x2 = (min(max(x, left), right) - left for x in (x1, x2))
            y1, y2 = (min(max(y, top), bottom) - top for y in (y1, y2))
            x1, x2 = (x * size[0] / (right - left) for x in (x1, x2))
            y1, y2 = (y * size[1] / (bottom - top) for y in (y1, y2))
            staged[i] = [size[0] - x2, y1, size[0] - x1, y2] if plan.flip else [x1, y1, x2, y2]
    return staged


def drawn_window(rng, boxes):
    """One window of seven samplers, all in turn; boxes and window as shares of the canvas."""

    def any_window():
        scale, aspect = rng.uniform(0.3, 1), rng.uniform(0.5, 2)
        aspect = min(max(aspect, scale**2), scale**-2)
        width, height = scale * aspect**0.5, scale / aspect**0.5
        x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        return x, y, x + width, y + height

    offers = [(0, 0, 1, 1), any_window()]
    for min_iou in (0.1, 0.3, 0.5, 0.7, 0.9):
        for _ in range(50):
            window = any_window()
            if any(iou(window, box) >= min_iou for box in boxes):
                offers.append(window)
                break
    return rng.choice(offers)
