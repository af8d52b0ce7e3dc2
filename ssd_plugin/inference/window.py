"""A window that shows images with their detections."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import cv2
from mmengine.structures import InstanceData

from ssd_plugin.errors import InputError
from ssd_plugin.inference.inputs import Image
from ssd_plugin.visualization.detections import draw

NO_KEY = -1
TITLE = 'Detections: q ends, any other key goes on'


class Window:
    """Shows one image after the other, until ``q`` is pressed or the window is closed.

    Frames follow each other by themselves, images at a key.

    Raises:
        InputError: There is no display, or OpenCV was built without windows.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        displays = ('DISPLAY', 'WAYLAND_DISPLAY')
        # Qt would end the program.
        if sys.platform == 'linux' and not any(map(os.environ.get, displays)):
            raise InputError('--show: there is no display here (DISPLAY is not set); use --out')
        try:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            raise InputError(
                '--show: this OpenCV has no windows; install opencv-python in place of '
                'opencv-python-headless, or use --out'
            ) from error

    def show(self, image: Image, found: InstanceData) -> bool:
        """Show detections; whether to go on."""
        cv2.imshow(TITLE, draw(image.pixels, found, self.classes))
        key = cv2.waitKey(1)
        while image.frame is None and key == NO_KEY and self.is_open():
            key = cv2.waitKey(100)
        return key & 0xFF != ord('q') and self.is_open()

    def is_open(self) -> bool:
        """Whether nobody has closed the window."""
        return cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()
