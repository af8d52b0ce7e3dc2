"""Frames of a camera or a network stream, the newest one each time."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from threading import Condition, Thread

import cv2
import numpy as np

from ssd_plugin.errors import InputError
from ssd_plugin.inference.inputs import Image, frame_rate

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each try to open a stream again
# OpenCV 4.11 has the one, 4.14 and 5.0 the other.
set_log_level = cv2.setLogLevel if hasattr(cv2, 'setLogLevel') else cv2.utils.logging.setLogLevel
LOG_ERRORS = 2  # OpenCV's number
TIMEOUT = 10_000  # milliseconds without an answer or a frame, after which a stream has broken off


def is_live(text: str) -> bool:
    """Whether an input is the number of a camera or the address of a stream."""
    return text.isdecimal() or re.match(r'[a-z][a-z0-9+.-]*://', text, re.IGNORECASE) is not None


class LiveStream:
    """An iterator over frames, which never lags behind: frames that come meanwhile are dropped.

    A thread receives all frames and keeps the newest. When the stream breaks off, the thread opens
    it again, after pauses that grow; if none of the tries yields a frame, the iterator ends. Each
    try, and the end, is said in one line. A video at an address, which has an end, ends there.

    Attributes:
        path: The number of the camera, or the address without the password.
        broken: Whether the stream has ended because it could not be opened again.

    Args:
        source: Number of a camera, or address of a stream.
        say: Takes a line about the stream.
        pauses: Before each try, in seconds.

    Raises:
        InputError: It can't be opened.
    """

    def __init__(
        self, source: str, say: Callable[[str], None] = print, pauses: tuple[float, ...] = PAUSES
    ) -> None:
        # What OpenCV and FFmpeg print of a stream that breaks off is said in one line.
        os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
        set_log_level(LOG_ERRORS)
        self.source, self.say, self.pauses = source, say, pauses
        self.path = re.sub(r'//[^/]*@', '//', source)  # a password may have an @
        self.name = f'camera_{source}' if source.isdecimal() else re.sub(r'\W+', '_', self.path)
        self.changed, self.received, self.taken, self.missed = Condition(), 0, 0, 0
        self.ended = self.broken = False
        self.newest: Image | None = None
        self.capture = self._open()
        if not self.capture.isOpened():
            self.capture.release()
            what = 'camera' if source.isdecimal() else 'stream'
            raise InputError(f"{self.path}: OpenCV can't open this {what}")
        self.start = time.monotonic()
        self.thread = Thread(target=self._receive, name='receiving', daemon=True)
        self.thread.start()

    def __iter__(self) -> Iterator[Image]:
        return self

    def __next__(self) -> Image:
        """The newest frame, once there is one that was not taken yet."""
        with self.changed:
            self.changed.wait_for(lambda: self.newest or self.ended)
            image, self.newest = self.newest, None
            if image is None:
                raise StopIteration
            if not self.taken:
                self.missed = image.frame or 0
            self.taken += 1
            return image

    @property
    def dropped(self) -> int:
        """Number of frames since the first one taken that came while another was at work."""
        return self.received - self.taken - self.missed

    def close(self) -> None:
        """End the stream."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()
        self.thread.join(1)  # a thread that waits for the network ends with the program

    def _open(self) -> cv2.VideoCapture:
        if self.source.isdecimal():
            return cv2.VideoCapture(int(self.source))
        timeouts = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
        options = [number for timeout in timeouts for number in (timeout, TIMEOUT)]
        return cv2.VideoCapture(self.source, cv2.CAP_FFMPEG, options)

    def _receive(self) -> None:
        try:
            self._receive_and_reopen()
        finally:  # whoever waits for a frame goes on, whatever has happened
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def _receive_and_reopen(self) -> None:
        tries, has_end = 0, self.capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
        while True:
            tries = 0 if self._receive_frames() else tries
            self.capture.release()
            if self.ended or has_end:
                return
            if tries == len(self.pauses):
                self.broken = True
                return
            pause = self.pauses[tries]
            tries += 1
            self.say(f'{self.path} broke off: try {tries} of {len(self.pauses)} in {pause:g} s')
            with self.changed:
                self.changed.wait_for(lambda: self.ended, pause)
            self.capture = self._open()

    def _receive_frames(self) -> int:
        """Receive until the stream breaks off or is closed; the number of frames."""
        before, rate = self.received, frame_rate(self.capture)
        while not self.ended:
            success, pixels = self.capture.read()
            if not success:
                break
            self._put(pixels, rate)
        return self.received - before

    def _put(self, pixels: np.ndarray, rate: float) -> None:
        seconds = time.monotonic() - self.start
        with self.changed:
            image = Image(self.path, self.name, pixels, self.received, rate, seconds)
            self.newest, self.received = image, self.received + 1
            self.changed.notify_all()
