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

TITLE = 'Detections: q ends'


class Window:
    """Shows one image after the other, until ``q`` is pressed or the window is closed.

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
        ended = cv2.waitKey(1) & 0xFF == ord('q')
        return not ended and cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()
