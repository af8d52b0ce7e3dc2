"""The COCO document of a part: the same for each format, and what MMDetection makes of it."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS

from ssd_plugin.datasets.own_data.recognise import recognise
from ssd_plugin.datasets.own_data.summary import DataSet
from tests.support.data_folders import (
    JPEGS,
    NAMES,
    SIZE,
    save_json,
    voc_object,
    voc_xml,
    write_coco,
    write_image,
    write_voc,
)
from tests.support.layouts import CLASSES, yolo_line


def written(root, classes=None, out=None):
    """The documents of a folder's parts."""
    source = recognise(root)
    data = DataSet(source, source.parts.names)
    files = data.write(classes or data.classes(), out or root / 'out')
    return {part: json.loads(path.read_text()) for part, path in files.items()}


# ------------------------------------------------------------------------- the same of each format

SIDES = st.integers(20, 300)


@st.composite
def images(draw):
    """Of each of five images the size, and the objects in it: class, xyxy from 0."""
    found = []
    for _ in range(5):
        width, height = draw(SIDES), draw(SIDES)
        corner = st.tuples(st.integers(0, width - 10), st.integers(0, height - 10))
        objects = []
        for kind, (x, y) in draw(st.lists(st.tuples(st.sampled_from(CLASSES), corner), max_size=4)):
            sides = draw(st.integers(2, width - 1 - x)), draw(st.integers(2, height - 1 - y))
            objects.append((kind, (x, y, x + sides[0], y + sides[1])))
        found.append(((width, height), objects))
    found[0][1].extend((name, (1, 2, 9, 9)) for name in CLASSES)  # so that each has all classes
    return found


def write_formats(root, images):
    (root / 'voc/xml').mkdir(parents=True)
    (root / 'yolo').mkdir()
    (root / 'yolo/classes.txt').write_text('\n'.join(CLASSES))
    document = dict(images=[], annotations=[])
    document['categories'] = [dict(id=i * 7, name=name) for i, name in enumerate(CLASSES)]
    for number, (size, objects) in enumerate(images):
        name = f'{number}.jpg'
        write_image(root / 'voc/images' / name, size)
        boxes = [voc_object(kind, [v + 1 for v in box]) for kind, box in objects]
        (root / f'voc/xml/{number}.xml').write_text(voc_xml(*boxes, size=size))
        lines = (yolo_line(kind, box, size) for kind, box in objects)
        (root / f'yolo/{number}.txt').write_text(''.join(lines))
        document['images'].append(dict(id=name, file_name=name))
        for kind, (x1, y1, x2, y2) in objects:
            bbox = dict(category_id=CLASSES.index(kind) * 7, bbox=[x1, y1, x2 - x1, y2 - y1])
            document['annotations'].append(dict(bbox, image_id=name))
    for other in ('coco', 'yolo'):
        shutil.copytree(root / 'voc/images', root / other / 'images')
    save_json(root / 'coco/all.json', document)


@settings(max_examples=25, deadline=None)
@given(images())
def test_the_same_objects_give_the_same_documents_in_any_format(images):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_formats(root, images)
        first, *others = (written(root / kind) for kind in ('voc', 'coco', 'yolo'))
    assert all(other == first for other in others)
    entries = sorted(
        (i['file_name'], (i['width'], i['height'])) for d in first.values() for i in d['images']
    )
    assert entries == [(f'images/{n}.jpg', size) for n, (size, _) in enumerate(images)]
    found: dict = {}
    for document in first.values():
        names = {image['id']: image['file_name'] for image in document['images']}
        for a in document['annotations']:
            x, y, w, h = a['bbox']
            name = CLASSES[a['category_id'] - 1]
            found.setdefault(names[a['image_id']], []).append((name, (x, y, x + w, y + h)))
    expected = {f'images/{n}.jpg': objects for n, (_, objects) in enumerate(images) if objects}
    assert found == expected


# ------------------------------------------------------------------------------------ its contents


def test_difficult_objects_are_ordinary_in_training_and_ignored_in_evaluation(tmp_path):
    write_voc(tmp_path, NAMES[:4], dict(train=NAMES[:2], val=NAMES[2:3], test=NAMES[3:4]))
    xml = voc_xml(voc_object('cat', difficult=1), voc_object('dog', box=(1, 1, 9, 9)))
    for path in (tmp_path / 'Annotations').iterdir():
        path.write_text(xml)
    documents = written(tmp_path)
    flags = {
        part: [(a['iscrowd'], a.get('difficult')) for a in document['annotations'][:2]]
        for part, document in documents.items()
    }
    assert flags == dict(
        train=[(0, 1), (0, None)], val=[(1, 1), (0, None)], test=[(1, 1), (0, None)]
    )


def test_crowds_are_ignored_in_training_too_and_areas_stay(tmp_path):
    document = write_coco(tmp_path / 'train.json', tmp_path, JPEGS[:3])
    document['annotations'][0].update(iscrowd=1, area=77.5)
    document['annotations'][1].update(iscrowd='0', area=1e-5)  # of the whole image, say
    del document['annotations'][2]['area']
    save_json(tmp_path / 'train.json', document)
    write_coco(tmp_path / 'val.json', tmp_path, JPEGS[3:4])
    annotations = written(tmp_path)['train']['annotations']
    assert [(a['iscrowd'], a['area']) for a in annotations] == [(1, 77.5), (0, 600), (0, 600)]
    assert not any('difficult' in annotation for annotation in annotations)


def labels(dataset):
    """Classes and boxes, by image."""
    found, names = {}, dataset.metainfo['classes']
    for info in map(dataset.get_data_info, range(len(dataset))):
        boxes = [(names[i['bbox_label']], i['bbox']) for i in info['instances']]
        found[Path(info['img_path']).name] = boxes
    return found


@pytest.mark.parametrize('classes', [
    ['cat', 'dog', 'cow'], ['cow', 'cat'], ['dog'], ['dog', 'cat'],
])  # fmt: skip
def test_labels_and_evaluation_are_of_the_classes_in_their_order(classes, tmp_path):
    """Whatever the order of the categories is, and whether they are all there."""
    document = write_coco(tmp_path / 'train.json', tmp_path, JPEGS, classes=('dog', 'cat', 'dog'))
    document['categories'].append(dict(id=90, name='pig'))
    for annotation in document['annotations']:
        annotation['id'] -= 1
        del annotation['area']
    for part in ('train', 'val'):
        save_json(tmp_path / f'{part}.json', document)
    written(tmp_path, classes, tmp_path / 'out')
    file, metainfo = str(tmp_path / 'out/val.json'), dict(classes=tuple(classes))
    dataset = DATASETS.build(dict(
        type='CheckedCocoDataset', ann_file=file, data_root=str(tmp_path), metainfo=metainfo,
        data_prefix=dict(img=''), test_mode=True,
    ))  # fmt: skip
    assert not dataset.faults
    assert labels(dataset) == {
        name: [(kind, [10, 10, 40, 30])] if kind in classes else []
        for name, kind in zip(JPEGS, ['dog', 'cat', 'dog'] * 4)
    }
    metric = CocoMetric(ann_file=file, classwise=True)
    metric.dataset_meta = dataset.metainfo
    for info in map(dataset.get_data_info, range(len(dataset))):  # detections without a fault
        found = info['instances']
        bboxes = torch.tensor([i['bbox'] for i in found], dtype=torch.float).reshape(-1, 4)
        labels_of = torch.tensor([i['bbox_label'] for i in found], dtype=torch.long)
        predictions = dict(bboxes=bboxes, labels=labels_of, scores=torch.ones(len(found)))
        sample = dict(img_id=info['img_id'], ori_shape=SIZE[::-1], pred_instances=predictions)
        metric.process({}, [sample])
    results = metric.evaluate(len(dataset))
    assert results['coco/bbox_mAP'] == 1
    assert all(results[f'coco/{name}_precision'] == 1 for name in classes if name != 'cow')
