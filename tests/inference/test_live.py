"""Cameras and network streams: the newest frame, and tries to open what broke off."""

import time
from contextlib import closing

import pytest

from ssd_plugin.errors import InputError
from ssd_plugin.inference.live import LiveStream, is_live
from tests.support.served_stream import served_folder, served_stream
from tests.support.videos import grey_frames, write_video


def level(image):
    return (image.pixels.mean() - 30) / 4


def test_numbers_and_addresses_are_live():
    assert [*map(is_live, ('0', '12', 'rtsp://a/b', 'http://a/b.mjpg'))] == [True] * 4
    assert [*map(is_live, ('a.mp4', 'a/0', 'C:/a.jpg', '*', ''))] == [False] * 5


def test_whoever_is_slow_gets_the_newest_frame():
    with served_stream(interval=0.04) as address, closing(LiveStream(address)) as stream:
        first = next(stream)
        time.sleep(1)
        later = next(stream)
        assert later.frame > first.frame + 4 and stream.dropped >= later.frame - first.frame - 1
        assert later.seconds > first.seconds + 0.2
        assert level(later) == pytest.approx(later.frame % 50, abs=1)
        assert later.path == address and later.rate > 0


def test_a_stream_that_breaks_off_is_opened_again():
    said = []
    with served_stream([20, 0, 20]) as address:
        stream = LiveStream(address, said.append, pauses=(0.05, 0.1))
        with closing(stream):
            frames = [image.frame for image in stream]  # until no connection gets any
    assert stream.broken
    assert frames == sorted(set(frames)) and stream.received > 30  # those of both connections
    tries = [f'{address} broke off: try {i} of 2 in {p} s' for i, p in ((1, '0.05'), (2, '0.1'))]
    assert said == [*tries, *tries]  # a try that succeeds makes the next one the first


def test_a_closed_stream_ends():
    with served_stream() as address:
        stream = LiveStream(address)
        next(stream)
        stream.close()
        stream.thread.join(5)
        assert not stream.thread.is_alive() and not stream.broken
        assert len(list(stream)) <= 1


def test_a_video_at_an_address_ends_with_its_last_frame(tmp_path):
    write_video(tmp_path / 'clip.mp4', grey_frames(9))
    said = []
    with served_folder(tmp_path) as address:
        stream = LiveStream(f'{address}/clip.mp4', said.append, pauses=(0.01,) * 3)
        with closing(stream):
            frames = [image.frame for image in stream]
    assert stream.received == 9 and frames[-1] == 8
    assert not said and not stream.broken


def test_whoever_waits_is_told_of_an_error_in_the_thread(monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(LiveStream, '_receive_frames', fail)
    monkeypatch.setattr('threading.excepthook', lambda _: None)
    with served_stream() as address, closing(LiveStream(address)) as stream:
        assert list(stream) == []


def test_what_can_not_be_opened_is_said_in_one_line_without_its_password():
    with pytest.raises(InputError) as caught:
        LiveStream('http://me:sec@ret@127.0.0.1:9/camera')
    assert str(caught.value) == "http://127.0.0.1:9/camera: OpenCV can't open this stream"
    with pytest.raises(InputError, match="^99: OpenCV can't open this camera$"):
        LiveStream('99')
