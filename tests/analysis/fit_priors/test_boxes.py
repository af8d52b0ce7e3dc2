"""Ground-truth boxes of a training set, in pixels of the network input."""

import json

import numpy as np
import pytest
from mmdet.registry import DATASETS

from ssd_plugin.analysis.fit_priors.boxes import collect_boxes, left_out_reasons
from tests.support.data_folders import write_boxes

CLASSES = ('cat', 'dog')
RESIZE = dict(scale=(100, 100), keep_ratio=False)
IMAGES = [
    ((200, 400), [('cat', (20, 40, 60, 80), False), ('dog', (100, 100, 250, 500), False)]),
    ((100, 100), []),
    ((100, 50), [('dog', (10, 10, 30, 20), True), ('cat', (10, 10, 10, 40), False)]),
    ((100, 100), [('cat', (200, 200, 300, 300), False), ('bird', (0, 0, 50, 50), False)]),
]


def voc(root, *pipeline):
    files = dict(ann_file='ImageSets/Main/trainval.txt', data_prefix=dict(sub_data_root=''))
    config = dict(type='VOCDataset', data_root=str(root), **files, pipeline=list(pipeline))
    return dict(config, metainfo=dict(classes=CLASSES))


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    return write_boxes(tmp_path_factory.mktemp('boxes'), IMAGES)


def test_boxes_are_scaled_and_clipped_and_faults_are_counted(tree):
    boxes = collect_boxes(DATASETS.build(voc(tree)), RESIZE)
    assert boxes.bboxes.tolist() == [[10, 10, 30, 20], [50, 25, 100, 100]]
    assert boxes.labels.tolist() == [0, 1]
    assert boxes.images.tolist() == [0, 0]
    assert boxes.sides.T.tolist() == [[20, 10], [50, 75]]
    assert boxes.centres.T.tolist() == [[20, 15], [75, 62.5]]
    assert (boxes.num_images, boxes.classes) == (4, CLASSES)
    assert boxes.left_out == {'ignored': 1, 'without area': 1, 'outside the image': 1}
    boxes = collect_boxes(DATASETS.build(voc(tree)), dict(scale=(100, 100), keep_ratio=True))
    assert boxes.bboxes.tolist() == [[5, 10, 15, 20], [25, 25, 50, 100]]


def test_difficult_boxes_count_where_training_uses_them(tree):
    dataset = DATASETS.build(voc(tree, dict(type='TrainOnDifficult')))
    boxes = collect_boxes(dataset, RESIZE)
    assert boxes.bboxes[-1].tolist() == [10, 20, 30, 40]
    assert 'ignored' not in boxes.left_out


def test_data_sets_inside_wrappers_count_once(tree):
    single = collect_boxes(DATASETS.build(voc(tree)), RESIZE)
    both = dict(type='ConcatDataset', datasets=[voc(tree), voc(tree)])
    repeated = dict(type='RepeatDataset', times=3, dataset=both)
    for config in (both, repeated):
        double = collect_boxes(DATASETS.build(config), RESIZE)
        assert len(double.labels) == 2 * len(single.labels)
        assert double.images.tolist() == [0, 0, 4, 4]


def test_coco_files(tmp_path):
    cat = dict(id=1, category_id=3, bbox=[5, 20, 10, 40], area=400, iscrowd=0, image_id=7)
    crowd = dict(cat, id=2, category_id=9, bbox=[0, 0, 50, 90], area=99, iscrowd=1)
    images = [dict(id=7, file_name='a.jpg', width=50, height=200)]
    categories = [dict(id=3, name='cat'), dict(id=9, name='dog')]
    annotation = dict(images=images, categories=categories, annotations=[cat, crowd])
    (tmp_path / 'train.json').write_text(json.dumps(annotation))
    config = dict(type='CocoDataset', ann_file='train.json', data_prefix=dict(img=''))
    config.update(data_root=str(tmp_path), metainfo=dict(classes=CLASSES))
    boxes = collect_boxes(DATASETS.build(config), RESIZE)
    assert boxes.bboxes.tolist() == [[10, 10, 30, 30]]
    assert boxes.labels.tolist() == [0]
    assert boxes.left_out == {'ignored': 1}


def test_a_sample_of_the_images_is_the_same_for_the_same_seed(tree):
    dataset = DATASETS.build(voc(tree))
    samples = [collect_boxes(dataset, RESIZE, 2, seed) for seed in (0, 0, 1, 2, 3)]
    assert all(sample.num_images == 2 for sample in samples)
    assert np.array_equal(samples[0].bboxes, samples[1].bboxes)
    assert len({tuple(sample.bboxes.ravel()) for sample in samples}) > 1


def test_each_reason_is_told():
    nan = float('nan')
    boxes = [[0, 0, 9, 9], [0, 0, 9, 9], [nan, 0, 9, 9], [-9, 0, 0, 9], [9, 9, 9, 12], [9, 9, 4, 5]]
    boxes.append([0, 0, 1e12, 9])
    sizes = np.full((7, 2), 20.0)
    ignored = np.array([False, True, True, False, False, False, False])
    assert left_out_reasons(np.array(boxes), sizes, ignored).tolist() == [
        '', 'ignored', 'not finite', 'outside the image', 'without area', 'without area',
        'too large',
    ]  # fmt: skip
