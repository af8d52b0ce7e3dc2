"""What OpenCV 4 detects with the networks of tests/support/caffe_ssd.py.

    python -m tests.long.caffe_golden

writes tests/checkpoints/golden/NAME.npz, which the tests compare with what converted weights
detect here. It needs NumPy and OpenCV before 5, which runs Caffe's files.
"""

from pathlib import Path

import cv2
import numpy as np

from tests.support.caffe_ssd import MODELS, SEED, caffemodel, prototxt, random_image, random_weights

GOLDEN = Path(__file__).resolve().parents[1] / 'checkpoints' / 'golden'


def run_opencv(model, weights, seed):
    """Detections (n, 6) by a .caffemodel: label from 0, score, xyxy in pixels of the input."""
    files = prototxt(model).encode(), weights
    net = cv2.dnn.readNetFromCaffe(*(np.frombuffer(file, np.uint8) for file in files))
    net.enableWinograd(False)  # which rounds more
    image = random_image(model.side, seed)
    net.setInput(cv2.dnn.blobFromImage(image, mean=(104, 117, 123)))
    found = net.forward()[0, 0, :, 1:].astype(np.float64)  # label from 1, score, box in shares
    found = found[found[:, 1] > 0]  # fewer than 200 are filled up
    found[:, 0] -= 1
    found[:, 2:] *= model.side
    return found.astype(np.float32)


def main():
    for name, model in MODELS.items():
        found = run_opencv(model, caffemodel(random_weights(model, SEED)), SEED)
        labels = len(np.unique(found[:, 0]))
        print(f'{name}: {len(found)} detections of {labels} classes, scores down to '
              f'{found[:, 1].min():.4f}')  # fmt: skip
        np.savez_compressed(GOLDEN / f'{name}.npz', detections=found)


if __name__ == '__main__':
    main()
