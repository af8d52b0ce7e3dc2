"""What the figures show, read back from their panels, titles and legends."""

import cv2
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ssd_plugin.evaluation.errors import count_by_class, diagnose
from ssd_plugin.evaluation.pr import Curve
from ssd_plugin.visualization import style
from ssd_plugin.visualization.errors import diagnosed_cell, draw_counts
from ssd_plugin.visualization.pr import draw_pr
from tests.support.detections import image_with_everything, make_result

CLASSES = ('cat', 'dog', 'cow')


def texts_of(artists):
    return [artist.get_text() for artist in artists]


def test_strokes_differ_by_colour_then_by_dashes():
    many = style.strokes(30)
    assert len({stroke.color for stroke in many[:7]}) == 7
    assert len({(stroke.color, str(stroke.dashes)) for stroke in many[:21]}) == 21
    assert many[21] == many[0]


def test_boxes_are_drawn_where_they_are():
    figure = Figure(figsize=(2, 1), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    style.show_image(axes, np.zeros((50, 100, 3), np.uint8))
    style.add_boxes(axes, [[20, 10, 70, 40]], style.Stroke(style.BLUE, width=1), rim=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())  # two pixels for each of the image's
    rows, columns = np.nonzero(image[..., 2] > 100)
    assert abs(rows.min() - 20) <= 2 and abs(rows.max() - 80) <= 2
    assert abs(columns.min() - 40) <= 2 and abs(columns.max() - 140) <= 2


@pytest.fixture
def diagnoses(tmp_path):
    """An image with one missed object, and one with each kind of error."""
    path = str(tmp_path / 'all.png')
    cv2.imwrite(path, np.full((160, 200, 3), 200, np.uint8))
    missed = make_result([([0, 0, 40, 40], 2, 0)], [], path)
    return [diagnose(missed), diagnose(image_with_everything(path))]


def test_errors_on_an_image(diagnoses):
    missed, everything = (diagnosed_cell(diagnosis, CLASSES) for diagnosis in diagnoses)
    assert missed.line == 'all.png: 1 missed'
    line = 'all.png: 1 confused, 1 badly placed, 1 duplicate, 1 false, 1 missed'
    assert everything.line == line
    assert dict(zip(everything.texts, everything.colors)) == {
        'cow 0.60, IoU 0.33': style.PURPLE,  # badly placed
        'cow 0.80, is dog': style.BLUE,  # confused
        'cat 0.70': style.SKY,  # duplicate
        'dog 0.50': style.RED,  # false
        'cat, missed': style.ORANGE,
        '': style.GREEN,  # found
    }
    assert everything.texts[-1] == ''  # below the others


def test_errors_as_bars(diagnoses):
    counts = count_by_class(diagnoses, 3)
    left, right = draw_counts(counts, CLASSES, 'Counts').axes
    lengths = [sum(p.get_width() for p in bar.patches) for bar in left.containers]
    assert lengths == [1, 1, 1, 2]  # found, confused, badly placed, missed
    assert [*filter(None, texts_of(left.texts))] == ['1', '1', '1', '1', '1']
    assert texts_of(right.get_yticklabels()) == list(CLASSES)


def test_a_panel_for_each_class_also_without_detections():
    nothing = np.zeros(0)
    cat = Curve('cat', 4, np.array([0.25, 0.5]), np.array([1, 1]), np.array([0.9, 0.8]), 0.5)
    figure = draw_pr([cat, Curve('cow', 1, nothing, nothing, nothing, 0.0)], 'Precision and recall')
    assert [axes.get_title() for axes in figure.axes] == ['cat: AP 0.500', 'cow: AP 0.000']
    notes = [axes.texts[0].get_text() for axes in figure.axes]
    assert notes == ['4 objects\nbest F1 0.67, score 0.80', '1 objects, no detections']
