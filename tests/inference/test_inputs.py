"""What is detected on: which files arguments name, and what is read of them."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssd_plugin.datasets.faults import DataFault
from ssd_plugin.errors import InputError
from ssd_plugin.inference.inputs import count_images, find_inputs, frame_rate, read_inputs
from tests.support.data_folders import write_image
from tests.support.photographs import drawn_image, encode_jpeg
from tests.support.videos import grey_frames, write_video


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Images in two folders and one below, and what is none."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(('a/1.jpg', 'a/2.PNG', 'a/below/1.jpg', 'b/1.jpg')):
        write_image(Path(name), number=number)
    Path('a/notes.txt').write_text('not an image')
    Path('a/folder.jpg').mkdir()
    return tmp_path


@pytest.mark.parametrize(
    'arguments, found',
    [
        (['a'], ['a/1.jpg', 'a/2.PNG']),  # of a folder its own images
        (['**/*.jpg'], ['a/1.jpg', 'a/below/1.jpg', 'b/1.jpg']),  # in folders of any depth
        (['a/*'], ['a/1.jpg', 'a/2.PNG']),
        (['?/[0-9].jpg'], ['a/1.jpg', 'b/1.jpg']),
        (['b/1.jpg', 'a', 'a/*.jpg', 'b'], ['b/1.jpg', 'a/1.jpg', 'a/2.PNG']),  # each once
        (['b/[1].dat'], ['b/[1].dat']),  # a file is no pattern, and may have any suffix
    ],
)
def test_arguments_name_files_folders_and_patterns(arguments, found, folder):
    Path('b/[1].dat').touch()
    assert find_inputs(arguments) == found


def test_patterns_leave_out_what_an_earlier_run_has_drawn(folder):
    write_image(Path('a/out/vis/1.jpg'))
    leave_out = [Path('a/out/vis')]
    assert find_inputs(['a/**/*.jpg'], leave_out) == ['a/1.jpg', 'a/below/1.jpg']
    for path in ('a/out/vis', 'a/out/vis/1.jpg'):  # drawing would replace them
        with pytest.raises(InputError, match='1.jpg is where results are written'):
            find_inputs([path], leave_out)
    with pytest.raises(InputError, match='^a/1.jpg is where results are written'):
        find_inputs(['a/1.jpg'], [Path('a/../a/1.jpg').absolute()])


def test_a_file_is_taken_once_whatever_it_is_called(folder):
    names = ['a/1.jpg', './a/1.jpg', str(folder / 'a/1.jpg'), 'b/../a/1.jpg']
    assert find_inputs(names) == ['a/1.jpg']


class Capture:
    def __init__(self, rate):
        self.rate = rate

    def get(self, _):
        return self.rate


@pytest.mark.parametrize('rate', [0, -1, 90_000, 1000, float('nan'), float('inf')])
def test_a_rate_that_can_not_be_is_a_usual_one(rate):
    assert frame_rate(Capture(rate)) == 25
    assert frame_rate(Capture(29.97)) == 29.97


@pytest.mark.parametrize(
    'argument, said',
    [
        ('none', 'none: no such file or folder, and as a pattern it matches no image'),
        ('a/*.bmp', 'a/*.bmp: no such file or folder'),
        ('.', 'no images in this folder (.jpg .jpeg'),
    ],
)
def test_an_argument_that_names_nothing_is_an_error(argument, said, folder):
    with pytest.raises(InputError) as caught:
        find_inputs(['a', argument])
    assert said in str(caught.value) and '\n' not in str(caught.value)


def test_images_are_named_below_the_folder_that_all_are_in(folder):
    for paths, names in (
        (['a/1.jpg', 'b/1.jpg'], ['a/1.jpg', 'b/1.jpg']),
        (['a/2.PNG', str(folder / 'a/below/1.jpg')], ['2.PNG', 'below/1.jpg']),
        (['a/2.PNG'], ['2.PNG']),
    ):
        images = list(read_inputs(paths))
        assert [image.name for image in images] == names
        assert [(image.path, image.frame) for image in images] == [(path, None) for path in paths]
        for image in images:  # decoded as OpenCV does
            assert np.array_equal(image.pixels, cv2.imread(image.path))


def test_what_can_not_be_read_is_named_and_the_rest_is_read(folder):
    Path('empty.jpg').touch()
    Path('text.jpg').write_text('not an image')
    Path('text.mp4').write_text('not a video')
    Path('half.jpg').write_bytes(Path('a/1.jpg').read_bytes()[:900])
    bad = ['empty.jpg', 'text.jpg', 'text.mp4', 'half.jpg']
    first, *faults, last = read_inputs(['a/1.jpg', *bad, 'b/1.jpg'])
    assert (first.name, last.name) == ('a/1.jpg', 'b/1.jpg')
    assert [fault.path for fault in faults] == bad
    assert all(isinstance(fault, DataFault) and fault.detail for fault in faults)


def test_large_jpegs_alone_are_shrunk_and_keep_the_size_in_their_file(folder):
    image = drawn_image(1800, 2400)
    Path('turned.jpg').write_bytes(encode_jpeg(image, orientation=6))
    cv2.imwrite('large.png', image)
    cv2.imwrite('small.jpg', image[:1600])
    Path('half.jpg').write_bytes(encode_jpeg(image)[:90000])
    paths = ['turned.jpg', 'large.png', 'small.jpg', 'half.jpg']
    shrunk, large, small, fault = read_inputs(paths, lambda image: image.decode(1 / 8)[0])
    assert shrunk.size == (1800, 2400) and shrunk.pixels.shape == (600, 450, 3)
    assert large.size == (2400, 1800) and np.array_equal(large.pixels, image)
    assert small.size == (2400, 1600) and small.pixels.shape == (1600, 2400, 3)
    assert isinstance(fault, DataFault) and fault.path == 'half.jpg'
    for path, read in zip(paths, read_inputs(paths[:3])):
        assert np.array_equal(read.pixels, cv2.imread(path)) and read.whole is None


@pytest.mark.parametrize('name', ['clip.mp4', 'clip.avi'])
def test_a_video_is_its_frames(name, folder):
    frames = grey_frames(7)
    write_video(Path(name), frames)
    read = list(read_inputs([name]))
    assert [image.frame for image in read] == list(range(7))
    for image, frame in zip(read, frames):
        assert image.name == name and image.pixels.shape == frame.shape and image.rate == 12.5
        assert image.pixels.mean() == pytest.approx(frame.mean(), abs=4)
    assert count_images([name, 'a/1.jpg', 'b/1.jpg']) == 9


def test_files_are_read_one_at_a_time(folder):
    stream = read_inputs(['a/1.jpg', 'b/1.jpg'])
    next(stream)
    os.remove('b/1.jpg')
    assert isinstance(next(stream), DataFault)
