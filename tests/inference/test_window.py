"""The window of ``--show``, with OpenCV's windows replaced: there is no display here."""

import cv2
import numpy as np
import pytest
from mmengine.structures import InstanceData

from ssd_plugin.inference.inputs import Image
from ssd_plugin.inference.window import Window


class Display:
    """What is shown to somebody who presses these keys, -1 for none, and then closes the window."""

    def __init__(self, keys):
        self.keys, self.shown, self.open = list(keys), [], True

    def wait(self, _):
        if not self.keys:
            self.open = False
            return -1
        return self.keys.pop(0)


@pytest.fixture
def display(monkeypatch, request):
    display = Display(request.param)
    monkeypatch.setenv('DISPLAY', ':0')
    monkeypatch.setattr(cv2, 'namedWindow', lambda *_: None)
    monkeypatch.setattr(cv2, 'imshow', lambda _, image: display.shown.append(image))
    monkeypatch.setattr(cv2, 'waitKey', display.wait)
    monkeypatch.setattr(cv2, 'getWindowProperty', lambda *_: float(display.open))
    return display


FOUND = InstanceData(
    bboxes=np.array([[5.0, 5, 30, 30]]), scores=np.array([0.9]), labels=np.array([0])
)


def show(frame):
    plain = np.full((40, 60, 3), 128, np.uint8)
    return Window(['cat']).show(Image('a', 'a', plain, frame), FOUND)


@pytest.mark.parametrize(
    'display, goes_on, left',
    [
        ([-1, -1, ord('n'), 7], True, 1),
        ([-1, ord('q'), 7], False, 1),
        ([-1, -1], False, 0),  # closed
    ],
    indirect=['display'],
)
def test_an_image_waits_for_a_key(display, goes_on, left):
    assert show(None) is goes_on
    assert len(display.keys) == left
    assert len(display.shown) == 1 and display.shown[0].std() > 0


@pytest.mark.parametrize(
    'display, goes_on', [([-1, 7], True), ([ord('q'), 7], False)], indirect=['display']
)
def test_a_frame_waits_for_nobody(display, goes_on):
    assert show(3) is goes_on
    assert display.keys == [7]
