"""How images look."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ssd_plugin.visualization.style import (
    BLUE,
    Stroke,
    draw_boxes,
    label_places,
    show_image,
    strokes,
)


def overlap(a, b, size):
    return all(abs(a[i] - b[i]) < size[i] for i in (0, 1))


def test_labels_cover_neither_each_other_nor_leave_the_image():
    boxes = [[10, 30, 60, 80], [12, 30, 62, 80], [10, 32, 60, 82], [0, 0, 20, 20], [90, 90, 99, 99]]
    size = (30, 8)
    places = label_places(boxes, [size] * len(boxes), (100, 100))
    for i, place in enumerate(places):
        assert 0 <= place[0] <= 70 and 0 <= place[1] <= 92
        assert not any(overlap(place, other, size) for other in places[:i])
    assert places[0] == (10, 22)  # above its box


def test_strokes_differ_by_colour_then_by_dashes():
    many = strokes(30)
    assert len({stroke.color for stroke in many[:7]}) == 7
    assert len({(stroke.color, str(stroke.dashes)) for stroke in many[:21]}) == 21
    assert many[21] == many[0]


def test_boxes_are_drawn_where_they_are():
    figure = Figure(figsize=(2, 1), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    show_image(axes, np.zeros((50, 100, 3), np.uint8))
    draw_boxes(axes, [[20, 10, 70, 40]], Stroke(BLUE, width=1), rim=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())  # two pixels for each of the image's
    rows, columns = np.nonzero(image[..., 2] > 100)
    assert abs(rows.min() - 20) <= 2 and abs(rows.max() - 80) <= 2
    assert abs(columns.min() - 40) <= 2 and abs(columns.max() - 140) <= 2
