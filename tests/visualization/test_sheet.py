"""What is on a contact sheet, and where, found again in its pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_plugin.visualization.sheet import GAP, LINE, TITLE, Cell, Entry, draw_sheet
from ssd_plugin.visualization.style import BLUE, ORANGE

BLUE_BGR, ORANGE_BGR = (178, 114, 0), (0, 159, 230)


def cell(width=100, height=80, box=(0.2, 0.5, 0.6, 0.9), line='a.jpg'):
    """A grey image with one blue box, whose corners are shares of its sides."""
    image = np.full((height, width, 3), 128, np.uint8)
    return Cell(line, image, np.multiply([box], [width, height] * 2), [''], [BLUE])


def extent(mask):
    """First row, first column, last row and last column of what is marked."""
    rows, columns = mask.nonzero()
    return rows.min(), columns.min(), rows.max(), columns.max()


def is_color(sheet, color):
    return (sheet == color).all(axis=2)


@pytest.mark.parametrize('size', [(100, 80), (1000, 800), (201, 161)])
def test_boxes_are_on_their_objects_whatever_size_the_image_has(size):
    sheet = draw_sheet('title', [cell(*size)], 3, 300)
    top, left, _, _ = extent(is_color(sheet, (128,) * 3))
    assert (top, left) == (2 * (TITLE + LINE), GAP // 2)
    expected = (top + 0.5 * 240, left + 0.2 * 300, top + 0.9 * 240, left + 0.6 * 300)
    assert extent(is_color(sheet, BLUE_BGR)) == pytest.approx(expected, abs=2)


def test_images_fill_rows_from_the_left():
    sheet = draw_sheet('', [cell() for _ in range(5)], 3, 200)
    row = 2 * LINE + 160 + GAP
    assert sheet.shape == (2 * TITLE + 2 * row, 3 * (200 + GAP), 3)
    cells = [part for rows in np.split(sheet[2 * TITLE :], 2) for part in np.split(rows, 3, axis=1)]
    assert all(np.array_equal(cells[0], other) for other in cells[1:5])
    assert (cells[5] == 255).all()


def test_an_image_of_another_shape_is_fitted_into_the_same_room():
    sheet = draw_sheet('', [cell(), cell(), cell(80, 400), cell(400, 80)], 4, 200)
    rooms = [extent(is_color(part, (128,) * 3)) for part in np.split(sheet, 4, axis=1)]
    sizes = [(right - left + 1, below - top + 1) for top, left, below, right in rooms]
    assert sizes == [(200, 160), (200, 160), (32, 160), (200, 40)]
    centres = [((left + right) / 2, (top + below) / 2) for top, left, below, right in rooms]
    assert np.ptp(centres, axis=0) == pytest.approx(0, abs=1)


@pytest.mark.parametrize('columns', [1, 3])
def test_the_legend_has_all_entries_in_their_colours(columns):
    legend = [Entry(f'entry {i} of the legend', BLUE if i % 2 else ORANGE) for i in range(6)]
    cells = [
        cell(box=(0, 0, 0, 0))._replace(bboxes=np.zeros((0, 4)), texts=[], colors=[])
    ] * columns
    without = draw_sheet('', cells, columns, 220)
    sheet = draw_sheet('', cells, columns, 220, legend)
    assert np.array_equal(sheet[: len(without)], without)
    below = sheet[len(without) :]
    squares = is_color(below, BLUE_BGR).sum(), is_color(below, ORANGE_BGR).sum()
    assert squares == (3 * (LINE + 1) ** 2,) * 2
    assert len(below) == 2 * LINE * (6 if columns == 1 else 2)


@settings(deadline=None, max_examples=30)
@given(st.text(st.characters(exclude_categories=()), max_size=300), st.integers(20, 200))
def test_no_text_is_too_long_or_too_strange(text, width):
    sheet = draw_sheet(text, [cell(line=text)], 1, width, [Entry(text, BLUE)])
    assert sheet.shape[1] == width + GAP
    lines = sheet[: 2 * TITLE], sheet[2 * TITLE : 2 * (TITLE + LINE)]
    assert all((line[:, [0, -1]] > 200).all() for line in lines), 'letters end at the border'


def test_lines_are_written_and_smaller_where_they_have_no_room():
    def letters(line):
        sheet = draw_sheet('', [cell(line=line)], 1, 200)
        return extent((sheet[2 * TITLE : 2 * (TITLE + LINE)] < 128).any(axis=2))

    top, left, below, right = letters('Hg.jpg')
    assert below - top > 0.7 * LINE and left + right == pytest.approx(200 + GAP, abs=6)
    top, left, below, right = letters('Hg, ' * 20 + 'Hg.jpg')
    assert below - top < 0.5 * LINE and 100 < right - left <= 200
