"""Reading, detecting and writing overlap, in order and in bounded memory."""

import time
import weakref
from contextlib import closing
from itertools import count, cycle
from threading import Barrier, Event, current_thread, enumerate

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from ssd_plugin.inference.inputs import Image
from ssd_plugin.inference.stream import detect_stream
from ssd_plugin.inference.threads import MOST_WORKERS, PROBES, read_ahead, share_threads

SECONDS = 20  # after which what should have happened has not


class Detector:
    """Finds one box, as wide as the number of the image."""

    def __init__(self, before=lambda: None):
        self.before = before

    def detect(self, images):
        self.before()
        boxes = [np.array([[0, 0, image.flat[0], 1]], np.float32) for image in images]
        return [InstanceData(bboxes=box, scores=np.ones(1), labels=np.zeros(1)) for box in boxes]


class Writer:
    """Remembers the numbers of images beside what was found, after something else."""

    def __init__(self, before=lambda image: None):
        self.before, self.written = before, []

    def write(self, image, found):
        self.before(image)
        self.written.append((int(image.pixels.flat[0]), int(found.bboxes[0, 2])))


def numbered(number, pixels=np.ndarray):
    full = np.full((4, 4, 3), number, np.uint8).view(pixels)
    return Image(f'{number}.jpg', f'{number}.jpg', full)


@pytest.mark.parametrize('workers', [1, 3])
def test_every_image_is_written_once_with_what_was_found_on_it(workers):
    slow, fast = Writer(lambda image: time.sleep(0.001)), Writer()
    images, waits = read_ahead(map(numbered, range(40)), 3), cycle([0.009, 0.006, 0.012])
    detector = Detector(lambda: time.sleep(next(waits)))
    (*_, tally) = detect_stream(detector, images, [slow, fast], 3, 0.3, workers)
    assert slow.written == fast.written == [(i, i) for i in range(40)]
    assert (tally.images, tally.detections, tally.faults) == (40, 40, [])


def test_an_image_is_read_and_another_written_while_one_is_detected_on():
    third_is_read, second_is_detected = Event(), Event()
    calls = iter(range(9))

    def images():
        yield from map(numbered, range(2))
        third_is_read.set()
        yield numbered(2)

    def detecting():
        if next(calls) == 1:
            assert third_is_read.wait(SECONDS)
            second_is_detected.set()

    writer = Writer(lambda image: second_is_detected.wait(SECONDS) or pytest.fail())
    list(detect_stream(Detector(detecting), read_ahead(images(), 1), [writer], 1, 0.3))
    assert len(writer.written) == 3


def test_workers_detect_at_once_after_the_first_batches():
    together, calls = Barrier(3, timeout=SECONDS), count()

    def detecting():
        time.sleep(0.01)
        if next(calls) >= PROBES:
            together.wait()

    number = PROBES + 9
    list(detect_stream(Detector(detecting), map(numbered, range(number)), [], 1, 0.3, workers=3))


def test_what_is_over_at_once_is_left_to_one_worker():
    names = []
    detector = Detector(lambda: names.append(current_thread().name))
    for tally in detect_stream(detector, map(numbered, range(20)), [], 1, 0.3, workers=3):
        assert tally.images == len(names)  # none is ahead


def test_one_worker_s_detections_come_before_the_next_image_is_waited_for():
    asked = []

    def camera():
        for number in range(3):
            asked.append(number)
            yield numbered(number)

    for tally in detect_stream(Detector(), camera(), [], 1, 0.3):
        assert tally.images == len(asked)
    assert asked == [0, 1, 2]


@pytest.mark.parametrize('workers', [1, 3])
@pytest.mark.parametrize('slow', ['reading', 'detecting', 'writing'])
def test_few_batches_are_in_memory(slow, workers):
    alive, most = weakref.WeakSet(), []

    class Pixels(np.ndarray):  # a plain array has no hash, which a WeakSet needs
        __hash__ = object.__hash__

    def wait(part):
        if slow == part:
            time.sleep(0.006)
        most.append(len(alive))

    def images():
        for number in range(60):
            wait('reading')
            image = numbered(number, Pixels)
            alive.add(image.pixels)
            yield image

    writer = Writer(lambda image: wait('writing'))
    detector = Detector(lambda: wait('detecting'))
    list(detect_stream(detector, read_ahead(images(), 4), [writer], 4, 0.3, workers))
    assert len(writer.written) == 60
    detected_on = 1 if workers == 1 else workers + 1
    # Batches read ahead, detected on, waiting to be written; the newest.
    assert max(most) <= (2 + detected_on) * 4 + 2


def test_an_error_in_reading_comes_after_the_images_before_it():
    def images():
        yield from map(numbered, range(3))
        raise ZeroDivisionError

    writer = Writer()
    with pytest.raises(ZeroDivisionError):
        list(detect_stream(Detector(), read_ahead(images(), 2), [writer], 1, 0.3))
    assert [number for number, _ in writer.written] == [0, 1, 2][: len(writer.written)]
    assert_no_threads()


@pytest.mark.parametrize('workers', [1, 3])
def test_an_error_in_detecting_comes_after_the_images_before_it(workers):
    class Fails(Detector):
        def detect(self, images):
            if images[0].flat[0] == 5:
                raise ZeroDivisionError
            return super().detect(images)

    writer, seen = Writer(), 0
    with pytest.raises(ZeroDivisionError):
        for tally in detect_stream(Fails(), map(numbered, range(90)), [writer], 1, 0.3, workers):
            seen = tally.images
    assert seen == 5
    assert [number for number, _ in writer.written] == [*range(5)][: len(writer.written)]
    assert_no_threads()


@pytest.mark.parametrize('threads', [1, 2, 3, 5, 8])
def test_workers_share_the_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        workers = share_threads()
        assert workers == min(threads, MOST_WORKERS)
        assert torch.get_num_threads() == threads // workers
    finally:
        torch.set_num_threads(before)


def test_an_error_in_writing_ends_it():
    def fail(image):
        raise OSError('no space left')

    endless = read_ahead((numbered(i % 200) for i in iter(int, 1)), 2)
    with closing(endless), pytest.raises(OSError, match='no space left'):
        list(detect_stream(Detector(), endless, [Writer(fail)], 1, 0.3))
    assert_no_threads()


def test_an_error_in_writing_the_last_image_is_raised():
    def fail(image):
        raise OSError('no space left')

    with pytest.raises(OSError, match='no space left'):
        list(detect_stream(Detector(), [numbered(1)], [Writer(fail)], 1, 0.3))


def test_closed_early_it_writes_what_it_is_at_and_no_more():
    started, go_on = Event(), Event()

    def wait(image):
        started.set()
        assert go_on.wait(SECONDS)

    writer, images = Writer(wait), read_ahead(map(numbered, range(90)), 4)
    tallies = detect_stream(Detector(), images, [writer], batch_size=4, score_thr=0.3)
    next(tallies)
    assert started.wait(SECONDS) and not writer.written
    go_on.set()
    tallies.close()
    images.close()
    assert 1 <= len(writer.written) <= 4
    assert writer.written == [(i, i) for i in range(len(writer.written))]
    assert_no_threads()


def assert_no_threads():
    named = {thread.name for thread in enumerate()} - {current_thread().name}
    assert not [name for name in named if name.startswith(('reading', 'writing'))]
