"""What the figures show, read back from their panels, titles and legends."""

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ssd_plugin.evaluation.errors import count_by_class, diagnose, total
from ssd_plugin.evaluation.pr import Curve
from ssd_plugin.visualization import style
from ssd_plugin.visualization.errors import draw_counts, draw_sheet
from ssd_plugin.visualization.pr import draw_pr
from tests.support.detections import image_with_everything, make_result

CLASSES = ('cat', 'dog', 'cow')


def texts_of(artists):
    return [artist.get_text() for artist in artists]


def test_labels_cover_neither_each_other_nor_leave_the_image():
    boxes = [[10, 30, 60, 80], [12, 30, 62, 80], [10, 32, 60, 82], [0, 0, 20, 20], [90, 90, 99, 99]]
    width, height = 30, 8
    places = style.label_places(boxes, [(width, height)] * len(boxes), (100, 100))
    for i, (x, y) in enumerate(places):
        assert 0 <= x <= 100 - width and 0 <= y <= 100 - height
        assert all(abs(x - a) >= width or abs(y - b) >= height for a, b in places[:i])
    assert tuple(places[0]) == (10, 22)  # above its box


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


def test_errors_on_images_and_as_bars(tmp_path):
    path = str(tmp_path / 'all.png')
    cv2.imwrite(path, np.full((160, 200, 3), 200, np.uint8))
    missed = make_result([([0, 0, 40, 40], 2, 0)], [], path)
    diagnoses = [diagnose(missed), diagnose(image_with_everything(path))]
    counts = count_by_class(diagnoses, 3)
    sheet = draw_sheet(diagnoses, total(counts), CLASSES, 'Errors')
    assert [axes.get_title() for axes in sheet.axes] == [
        'all.png: 1 missed',
        'all.png: 1 confused, 1 badly placed, 1 duplicate, 1 false, 1 missed',
    ]
    labels = {t.get_text(): t.get_bbox_patch().get_facecolor() for t in sheet.axes[1].texts}
    assert {text: to_hex(color).upper() for text, color in labels.items()} == {
        'cow 0.60, IoU 0.33': style.PURPLE,  # badly placed
        'cow 0.80, is dog': style.BLUE,  # confused
        'cat 0.70': style.SKY,  # duplicate
        'dog 0.50': style.RED,  # false
        'cat': style.ORANGE,  # missed
    }
    assert {'missed (2 in all)', 'found (1 in all)'} <= {*texts_of(sheet.legends[0].get_texts())}

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
