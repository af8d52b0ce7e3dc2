"""Large JPEGs are decoded with less resolution, and are the same images."""

import io
import struct
from math import ceil

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_plugin.datasets.faults import image_size
from ssd_plugin.datasets.large_images import LargeJpeg, read_header, resize_by_area
from tests.support.photographs import XMP, decode_whole, drawn_image, encode_jpeg


def large(content):
    """What a file of any size would be if it were large; the size is as OpenCV decodes it."""
    height, width = decode_whole(content).shape[:2]
    return LargeJpeg(content, (width, height), turned=True)


def mean_of_blocks(image, divisor):
    """The image with each block of pixels in place of one, those at the end incomplete."""
    height, width = image.shape[:2]
    rows, columns = range(0, height, divisor), range(0, width, divisor)
    return np.array([
        [image[y : y + divisor, x : x + divisor].mean((0, 1)) for x in columns] for y in rows
    ])  # fmt: skip


@pytest.mark.parametrize('size', [(96, 160), (97, 163)])
@pytest.mark.parametrize('divisor', [1, 2, 4, 8])
def test_a_pixel_of_the_decoded_image_is_the_mean_of_a_block(size, divisor):
    content = encode_jpeg(drawn_image(*size))
    image = LargeJpeg(content, size[::-1])
    scale = 1 / divisor / 1.5
    decoded, got = image.decode(scale)
    assert got == divisor
    expected = mean_of_blocks(decode_whole(content), divisor)
    assert decoded.shape == expected.shape and decoded.dtype == np.uint8
    difference = np.abs(decoded - expected)
    assert difference[:-1, :-1].mean() < 1.5 and difference.mean() < 2  # grey levels
    finer, smaller = image.decode(scale * 1.001)
    assert smaller == max(divisor // 2, 1) and finer.size >= decoded.size


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('size', [(64, 96), (66, 100), (67, 101)])
def test_turned_images_are_not_shifted(orientation, size):
    content = encode_jpeg(drawn_image(*size), orientation)
    whole = decode_whole(content)
    decoded, divisor = large(content).decode(1 / 16)
    assert divisor == {(64, 96): 8, (66, 100): 2, (67, 101): 1}[size]
    assert np.abs(decoded - mean_of_blocks(whole, divisor)).mean() < 1.5


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(100, 300), st.integers(100, 300)),
    share=st.tuples(st.floats(0.08, 1), st.floats(0.08, 1)),
)
def test_shrunk_images_equal_the_whole_image_shrunk_by_area(size, share):
    content = encode_jpeg(drawn_image(*size))
    target = tuple(max(round(side * part), 1) for side, part in zip(size[::-1], share))
    whole = decode_whole(content)
    exact = cv2.resize(whole, target, interpolation=cv2.INTER_AREA).astype(float)
    for image in (LargeJpeg(content, size[::-1]), whole):
        got = resize_by_area(image, target)
        assert got.shape == (target[1], target[0], 3)
        assert np.abs(got - exact).mean() < 2  # 1.61 has been seen, 224 x 224 to 18 x 18


BIG = drawn_image(2004, 2001)


@pytest.mark.parametrize('options', [
    *(dict(orientation=number) for number in range(1, 9)), dict(orientation=0),
    dict(orientation=9), dict(exif=b''), dict(exif=b'Exif\0\0no TIFF', xmp=XMP), dict(xmp=XMP),
    dict(exif=b'', xmp=XMP), dict(mode='L'), dict(mode='CMYK'), dict(progressive=True),
], ids=str)  # fmt: skip
def test_the_size_in_the_header_is_that_of_the_decoded_image(options, tmp_path):
    content = encode_jpeg(BIG, **options)
    image = LargeJpeg.read(content)
    whole = decode_whole(content)
    assert image.shape == whole.shape and image.size == whole.size
    assert image.dtype == whole.dtype
    decoded, divisor = image.decode(1 / 6)
    assert divisor == (1 if image.turned else 4)  # 2001 is odd
    assert decoded.shape[:2] == tuple(ceil(side / divisor) for side in whole.shape[:2])
    path = tmp_path / 'a.jpg'
    path.write_bytes(content)
    assert image_size(str(path)) == whole.shape[1::-1]


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('kind', ['BB', 'HH', 'II', 'ii'])  # of two, the second is 6 as well
@pytest.mark.parametrize('count', [1, 2])
def test_an_orientation_of_any_type_is_that_of_opencv(order, kind, count):
    number = dict(B=1, H=3, I=4, i=9)[kind[0]]  # TIFF's types
    value = struct.pack(order + kind[:count], *[6] * count)[:4].ljust(4, b'\0')
    start = dict(zip('<>', (b'II', b'MM')))[order] + struct.pack(order + 'HIH', 42, 8, 1)
    entry = struct.pack(order + 'HHI', 0x0112, number, count) + value
    content = encode_jpeg(BIG[:40], exif=b'Exif\0\0' + start + entry + bytes(4))
    assert read_header(io.BytesIO(content))[0] == decode_whole(content).shape[1::-1]


def test_only_jpegs_of_more_than_4_megapixels_are_left_undecoded():
    assert LargeJpeg.read(encode_jpeg(BIG[:2000, :2000])) is None
    assert LargeJpeg.read(encode_jpeg(BIG[:2000])) is not None
    assert LargeJpeg.read(cv2.imencode('.png', BIG)[1].tobytes()) is None
    assert LargeJpeg.read(b'') is None
    assert LargeJpeg.read(encode_jpeg(BIG)[:20]) is None


def test_a_damaged_body_or_a_wrong_size_is_an_error():
    content = encode_jpeg(drawn_image(64, 96))
    with pytest.raises(ValueError, match='decoded to'):
        LargeJpeg(content, (64, 96)).decode(1)
    with pytest.raises(ValueError, match="can't decode"):
        LargeJpeg(content[:300], (96, 64)).decode(1)
