"""The drawn data set: a genuine VOC tree, the same for the same seed, with tight boxes."""

import xml.etree.ElementTree as ET
from collections import Counter

import cv2
import numpy as np
import pytest
from mmdet.datasets import VOCDataset

from ssd_plugin.datasets import shapes
from ssd_plugin.datasets.shapes import CLASSES, draw_image, write_voc_shapes


def files(tree):
    return {str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob('*') if p.is_file()}


def names(tree, split):
    return (tree / 'ImageSets' / 'Main' / f'{split}.txt').read_text().split()


def objects(tree, name):
    """(class, box, truncated, difficult) of each object of an annotation, as integers."""
    found = []
    for element in ET.parse(tree / 'Annotations' / f'{name}.xml').iter('object'):
        box = [int(corner.text) for corner in element.find('bndbox')]
        flags = [int(element.findtext(flag)) for flag in ('truncated', 'difficult')]
        found.append((element.findtext('name'), box, *flags))
    return found


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    return write_voc_shapes(tmp_path_factory.mktemp('shapes') / 'new', 35, 10, seed=3)


def test_an_image_depends_on_the_seed_and_not_on_how_many_are_drawn(tree, tmp_path):
    many = files(tree)
    assert files(write_voc_shapes(tmp_path / 'again', 35, 10, seed=3)) == many
    for seed in (3, 4):
        few = files(write_voc_shapes(tmp_path / str(seed), 1, 4, seed=seed))
        images = [path for path in few if path.startswith(('JPEGImages', 'Annotations'))]
        assert len(images) == 10
        assert all((few[path] == many[path]) == (seed == 3) for path in images)


def test_splits_are_disjoint_and_complete(tree):
    train, val, trainval, test = (names(tree, s) for s in ('train', 'val', 'trainval', 'test'))
    assert (len(train), len(val), len(trainval), len(test)) == (28, 7, 35, 10)
    assert sorted(train + val) == trainval
    assert not set(trainval) & set(test)
    for folder, ending in (('JPEGImages', '.jpg'), ('Annotations', '.xml')):
        present = sorted(p.name for p in (tree / folder).iterdir())
        assert present == sorted(f'{name}{ending}' for name in trainval + test)


def test_annotations_have_the_fields_of_voc_and_boxes_lie_in_the_image(tree):
    edges = set()
    for name in names(tree, 'trainval') + names(tree, 'test'):
        root = ET.parse(tree / 'Annotations' / f'{name}.xml').getroot()
        fields = [element.tag for element in root if element.tag != 'object']
        assert fields == ['folder', 'filename', 'source', 'size', 'segmented']
        image = cv2.imread(str(tree / 'JPEGImages' / root.find('filename').text))
        size = [int(root.find('size').find(t).text) for t in ('height', 'width', 'depth')]
        assert tuple(size) == image.shape
        for element in root.findall('object'):
            fields = [field.tag for field in element]
            assert fields == ['name', 'pose', 'truncated', 'difficult', 'bndbox']
            assert [corner.tag for corner in element[-1]] == ['xmin', 'ymin', 'xmax', 'ymax']
        height, width = image.shape[:2]
        for _, (x1, y1, x2, y2), *_ in objects(tree, name):  # counted from 1
            assert 1 <= x1 < x2 <= width and 1 <= y1 < y2 <= height
            edges |= {x1 == 1 or y1 == 1, x2 == width or y2 == height}
    assert edges == {True, False}  # some objects leave the image


def test_the_set_is_varied(tree):
    found = [o for name in names(tree, 'trainval') for o in objects(tree, name)]
    classes = Counter(name for name, *_ in found)
    assert set(classes) == set(CLASSES)
    assert min(classes.values()) >= 0.1 * len(found)
    sides = [max(x2 - x1, y2 - y1) + 1 for _, (x1, y1, x2, y2), *_ in found]
    assert min(sides) < 60 and max(sides) > 120
    assert 0.05 < np.mean([truncated for *_, truncated, _ in found]) < 0.5
    assert 0 < np.mean([difficult for *_, difficult in found]) < 0.15
    assert len({len(objects(tree, name)) for name in names(tree, 'trainval')}) >= 5


@pytest.fixture
def bare(monkeypatch):
    """Shapes are drawn on black, and images stay (3, h, w) float32."""
    monkeypatch.setattr(shapes, '_background', lambda rng, h, w: np.zeros((3, h, w), np.float32))
    monkeypatch.setattr(shapes, '_photograph', lambda rng, image: image)


def test_a_box_is_tight_around_the_pixels_of_its_shape(bare, monkeypatch):
    """What is not black is the shape, but for its soft border."""
    monkeypatch.setattr(shapes, 'MAX_SHAPES', 1)
    truncated = 0
    for i in range(40):
        image, [shape] = draw_image(np.random.default_rng(i))
        rows, columns = np.nonzero(image.max(axis=0) > 20)  # half of the darkest colour
        extent = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
        assert (abs(extent - shape.box) <= 1).all(), (shape, extent)
        truncated += shape.truncated
    assert 1 <= truncated <= 20


def test_a_box_spans_what_others_leave_visible(bare, monkeypatch):
    """Against images in which each shape is painted with its number."""
    painted = []

    def paint_number(rng, image, sprite, x, y):
        pixels = np.argwhere(sprite.max(axis=0) >= 0.5) + (y, x)
        painted.append(len(pixels))
        inside = ((pixels >= 0) & (pixels < image.shape[1:])).all(axis=1)
        image[0][tuple(pixels[inside].T)] = len(painted)

    monkeypatch.setattr(shapes, '_paint', paint_number)
    partly_hidden = difficult = 0
    for i in range(30):
        painted.clear()
        numbers, found = draw_image(np.random.default_rng(i))
        assert len(found) == len(painted)
        for number, shape in enumerate(found, start=1):
            rows, columns = np.nonzero(numbers[0] == number)
            assert shape.box == (columns.min(), rows.min(), columns.max(), rows.max())
            visible = len(rows) / painted[number - 1]
            assert visible >= 0.4
            assert shape.difficult == (visible < 0.55)
            partly_hidden += visible < 0.95
            difficult += shape.difficult
    assert partly_hidden >= 10 and difficult >= 1


def test_the_longest_side_of_a_shape_is_a_fifth_to_three_fifths_of_the_shorter_of_its_image():
    for i in range(20):
        image, found = draw_image(np.random.default_rng(i))
        unit = min(image.shape[:2])
        for shape in (s for s in found if not s.truncated):
            side = max(shape.box[2] - shape.box[0], shape.box[3] - shape.box[1]) + 1
            edge = unit * 0.6 / 24 + 3  # its thickness, half of it on each side
            assert 0.2 * unit - 2 <= side <= 0.6 * unit + edge


def test_progress_is_told_of_every_image_and_other_files_stay(tmp_path):
    mine = [tmp_path / 'notes.txt', tmp_path / 'JPEGImages' / 'mine.jpg']
    mine[1].parent.mkdir()
    for path in mine:
        path.write_text('kept')
    told = []
    write_voc_shapes(tmp_path, 2, 1, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert [path.read_text() for path in mine] == ['kept', 'kept']


@pytest.mark.parametrize('wrong', [dict(num_train=-1), dict(num_test=-1)])
def test_impossible_arguments_are_refused_before_anything_is_written(wrong, tmp_path):
    with pytest.raises(ValueError, match='must be'):
        write_voc_shapes(tmp_path / 'new', **wrong)
    assert not (tmp_path / 'new').exists()


def test_mmdetection_reads_the_same_objects(tree):
    for split in ('trainval', 'test'):
        files = dict(ann_file=f'ImageSets/Main/{split}.txt', data_prefix=dict(sub_data_root=''))
        classes = dict(classes=CLASSES)
        dataset = VOCDataset(data_root=str(tree), metainfo=classes, pipeline=[], **files)
        assert len(dataset) == len(names(tree, split))
        for i, name in enumerate(names(tree, split)):
            info = dataset.get_data_info(i)
            read = [(o['bbox_label'], o['bbox'], o['ignore_flag']) for o in info['instances']]
            assert read == [
                (CLASSES.index(label), [c - 1 for c in box], difficult)
                for label, box, _, difficult in objects(tree, name)
            ]
