"""Videos to read back."""

import cv2
import numpy as np


def write_video(path, frames, rate=12.5):
    height, width = frames[0].shape[:2]
    fourcc = cv2.VideoWriter_fourcc(*('mp4v' if path.suffix == '.mp4' else 'MJPG'))
    video = cv2.VideoWriter(str(path), fourcc, rate, (width, height))
    for frame in frames:
        video.write(frame)
    video.release()


def grey_frames(number, size=(96, 64)):
    """Frames that say by their grey which they are."""
    return [np.full((size[1], size[0], 3), 20 * i + 60, np.uint8) for i in range(number)]
