"""What a folder is taken for, what is read from it, and what is written for the data sets."""

import json
import time
from pathlib import Path

import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS

from ssd_plugin.datasets.faults import Kind
from ssd_plugin.datasets.own_data.parts import choose_parts
from ssd_plugin.datasets.own_data.recognise import recognise
from ssd_plugin.datasets.own_data.summary import DataSet
from ssd_plugin.errors import SSDPluginError
from tests.support.data_folders import (
    JPEGS,
    NAMES,
    SIZE,
    coco_document,
    save_json,
    voc_object,
    voc_xml,
    write_coco,
    write_image,
    write_voc,
)


def read(root):
    source = recognise(root)
    return DataSet(source, source.parts.names)


def paths(root):
    """The images that are read, by part."""
    return {part: [image.path for image in images] for part, images in read(root).images.items()}


def used(root):
    """The images of all parts in the order of their names."""
    return sorted(path for part in paths(root).values() for path in part)


def refusal(root):
    """The message, one line, with which a folder is refused."""
    with pytest.raises(SSDPluginError) as caught:
        read(root)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def found_faults(root):
    """Kinds and paths of all faults."""
    data = read(root)
    return [(fault.kind, fault.path) for _, fault in data.all_faults(data.classes())]


def write_copy(source, part, names, classes, folder):
    """What the source writes for images of a part, and its path."""
    images = [source.read(part, name) for name in names]
    assert not any(image.faults for image in images)
    path = source.write(part, images, classes, folder)
    return json.loads(path.read_text()), path


# ----------------------------------------------------------------------------------- layouts


def test_a_voc_style_folder_with_lists(tmp_path):
    lists = dict(train=NAMES[:5], val=NAMES[5:8], trainval=NAMES[:8], test=NAMES[8:])
    data = read(write_voc(tmp_path, NAMES, lists))
    assert (data.source.kind, data.source.description) == ('VOC', 'a VOC-style folder')
    assert [len(data.images[part]) for part in ('train', 'val', 'test')] == [5, 3, 2]
    image = data.images['train'][1]
    assert (image.path, image.source) == ('JPEGImages/image 01.jpg', 'Annotations/image 01.xml')
    assert image.size == SIZE
    assert [tuple(box) for box in image.boxes] == [('dog', (10, 10, 39, 29), False)]
    assert data.classes() == ['cat', 'dog']
    assert not data.all_faults(['cat', 'dog']) and data.source.notes == []


@pytest.mark.parametrize('suffix', ['.png', '.jpeg', '.bmp', '.JPG'])
def test_folders_in_small_letters_with_images_of_any_type(suffix, tmp_path):
    write_voc(tmp_path, NAMES, suffix=suffix, folders=('annotations', 'images'))
    assert used(tmp_path) == [f'images/{name}{suffix}' for name in NAMES]


def test_a_devkit_of_several_years_is_trained_and_tested_as_published(tmp_path):
    years = tmp_path / 'VOCdevkit'
    lists = dict(train=NAMES[:4], val=NAMES[4:6], trainval=NAMES[:6], test=NAMES[6:])
    write_voc(years / 'VOC2007', NAMES, lists)
    lists = dict(train=NAMES[:1], val=NAMES[1:2], trainval=NAMES[:2])
    write_voc(years / 'VOC2012', NAMES[:2], lists, suffix='.png')
    expected = [f'VOC2007/JPEGImages/{name}' for name in JPEGS[:6]]
    expected += [f'VOC2012/JPEGImages/{name}.png' for name in NAMES[:2]]
    found = paths(years)
    assert found['train'] == expected
    assert found['val'] == [f'VOC2007/JPEGImages/{name}' for name in JPEGS[6:]]
    assert paths(tmp_path)['train'] == [f'VOCdevkit/{path}' for path in expected]
    assert recognise(tmp_path).description == 'Pascal VOC (VOC2007, VOC2012)'
    one_year = recognise(years / 'VOC2012')
    assert one_year.benchmark and one_year.description == 'Pascal VOC (VOC2012)'
    assert one_year.parts.names == dict(train=NAMES[:1], val=NAMES[1:2])


def test_lists_may_name_files_and_lie_in_imagesets_itself(tmp_path):
    lists = write_voc(tmp_path, NAMES) / 'ImageSets'
    lists.mkdir()
    (lists / 'training.txt').write_text('image 00.jpg\r\n\r\nimage 01.jpg\r\n')
    (lists / 'valid.txt').write_text('image 02.xml\n')
    (lists / 'cat_train.txt').write_text('image 03  1\n')
    source = recognise(tmp_path)
    assert source.parts.names == dict(train=NAMES[:2], val=NAMES[2:3])
    assert source.notes == ['In no list, and not used: 7 annotations.']


COCO_LAYOUTS = {  # jsons and folders of images, by the words for train and val
    'as COCO': ('annotations/instances_{}2017.json', '{}2017', 'train', 'val'),
    'images': ('{}.json', 'images', 'train', 'val'),
    'images/train': ('annotations/{}.json', 'images/{}', 'train', 'val'),
    'beside': ('{}.json', '.', 'train', 'val'),
    'a folder each': ('{}/_annotations.coco.json', '{}', 'train', 'valid'),
}


@pytest.mark.parametrize('layout', COCO_LAYOUTS)
def test_coco_layouts(layout, tmp_path):
    json_name, folder, *words = COCO_LAYOUTS[layout]
    (train_json, train), (val_json, val) = ((json_name.format(w), folder.format(w)) for w in words)
    # The same names on both sides, where the folders differ: the right one is to be found.
    val_names = JPEGS[:3] if train != val else [f'val {name}' for name in JPEGS[:3]]
    write_coco(tmp_path / train_json, tmp_path / train, JPEGS)
    write_coco(tmp_path / val_json, tmp_path / val, val_names)
    if layout == 'as COCO':
        save_json(tmp_path / 'annotations' / 'captions_train2017.json', dict(captions=[]))
    data = read(tmp_path)
    assert data.source.kind == 'COCO'
    assert paths(tmp_path) == dict(
        train=[(Path(train) / name).as_posix() for name in JPEGS],
        val=[(Path(val) / name).as_posix() for name in val_names],
    )
    assert data.source.dataset('val')['data_prefix'] == dict(img='' if val == '.' else f'{val}/')
    # Nothing is wrong with these, and they are used as they are.
    written = data.source.write('val', data.images['val'], ['cat', 'dog'], tmp_path / 'out')
    assert written == tmp_path / val_json and not (tmp_path / 'out').exists()


def test_one_json_which_may_name_subfolders_is_divided(tmp_path):
    names = [f'images/{i % 2}/{name}' for i, name in enumerate(JPEGS)]
    write_coco(tmp_path / 'labels.json', tmp_path, names)
    data = read(tmp_path)
    assert len(data.images['train']) == 8 and len(data.images['val']) == 2
    assert used(tmp_path) == sorted(names)
    file = data.source.write('val', data.images['val'], ['cat', 'dog'], tmp_path / 'out')
    written = json.loads(file.read_text())
    assert file == tmp_path / 'out' / 'val.json'
    assert [image['file_name'] for image in written['images']] == paths(tmp_path)['val']
    kept = {image['id'] for image in written['images']}
    assert {annotation['image_id'] for annotation in written['annotations']} == kept


def test_a_test_part_alone_is_a_data_set_but_not_to_train_on(tmp_path):
    write_coco(tmp_path / 'test.json', tmp_path / 'images', JPEGS)
    parts = recognise(tmp_path).parts
    assert parts.evaluated == 'val' and len(parts.names['val']) == 10
    assert 'no images for train: none' in refusal(tmp_path)
    write_coco(tmp_path / 'train.json', tmp_path / 'images', JPEGS)
    for path in (tmp_path / 'images').iterdir():
        path.unlink()
    assert 'no images for train: 10 missing images (image 00.jpg: ' in refusal(tmp_path)


def test_thousands_of_images_are_read_in_seconds(tmp_path):
    root = write_voc(tmp_path / 'data', NAMES[:1])
    for i in range(2500):
        (root / 'JPEGImages' / f'{i}.jpg').hardlink_to(root / 'JPEGImages' / JPEGS[0])
        (root / 'Annotations' / f'{i}.xml').hardlink_to(root / 'Annotations' / f'{NAMES[0]}.xml')
    start = time.monotonic()
    assert sum(map(len, read(root).images.values())) == 2501
    assert time.monotonic() - start < 20


# ------------------------------------------------------------------------- folders of no use


def test_what_was_looked_for_and_found_is_told_and_what_lies_a_folder_below(tmp_path):
    assert refusal(tmp_path / 'nowhere') == f'no folder {tmp_path / "nowhere"}'
    assert 'Found nothing' in refusal(tmp_path)
    write_image(tmp_path / 'photos' / 'a.jpg')
    for name in ('a.txt', 'b.txt', 'LICENSE'):
        (tmp_path / name).touch()
    message = refusal(tmp_path)
    assert 'Looked for VOC: Annotations/*.xml beside JPEGImages or images' in message
    assert 'COCO: annotations/instances_*.json' in message
    assert 'Found photos/, 2 *.txt, 1 *LICENSE' in message and 'Did you mean' not in message
    write_voc(tmp_path, NAMES[:2], folders=('Annotations', 'photos'))
    assert 'Found Annotations/, photos/' in refusal(tmp_path), 'annotations without images'
    write_voc(tmp_path / 'mine', NAMES[:2])
    assert f'Did you mean {tmp_path / "mine"}?' in refusal(tmp_path)
    write_coco(tmp_path / 'coco' / 'train.json', tmp_path / 'coco', ['a.jpg'])
    assert f'Did you mean {tmp_path / "coco"}?' in refusal(tmp_path)


@pytest.mark.parametrize('content, expected', [
    ('{"images": ', "can't read"),
    ('[]', 'no COCO json'),
    ('{"images": [], "annotations": {}, "categories": []}', 'no COCO json'),
    ('{"images": [1], "annotations": [], "categories": []}', 'no COCO json'),
    ('[' * 100000, "can't read"),
])  # fmt: skip
def test_a_json_of_another_kind(content, expected, tmp_path):
    (tmp_path / 'train.json').write_text(content)
    message = refusal(tmp_path)
    assert expected in message and str(tmp_path / 'train.json') in message


def test_which_json_is_for_training_has_to_be_clear(tmp_path):
    for name in 'abcdef':
        save_json(tmp_path / f'{name}.json', coco_document([]))
    assert 'none is train: a.json, b.json, c.json, d.json, ...; expected' in refusal(tmp_path)
    for year in (2014, 2017):
        save_json(tmp_path / 'annotations' / f'instances_train{year}.json', coco_document([]))
    expected = 'several json files for train: annotations/instances_train2014.json, '
    assert expected in refusal(tmp_path)


# ------------------------------------------------------------------------------------ parts


def test_a_split_is_the_same_again_in_any_order():
    parts = choose_parts({}, NAMES)
    train, val = parts.names['train'], parts.names['val']
    assert parts == choose_parts({}, NAMES)
    assert len(val) == 2 and sorted(train + val) == NAMES
    assert sorted(choose_parts({}, NAMES[::-1]).names['val']) == sorted(val)
    assert train == [name for name in NAMES if name in train], 'out of order'
    assert parts.origin == '20% of the images for val, drawn with seed 0'
    listed = choose_parts(dict(train=NAMES[:5]), NAMES).names  # a list to train on alone
    assert len(listed['val']) == 1 and sorted(listed['train'] + listed['val']) == NAMES[:5]


def test_images_stay_in_their_part_when_others_are_added():
    names = [f'{i}' for i in range(1000)]
    before, after = (set(choose_parts({}, names[:n]).names['val']) for n in (900, 1000))
    assert (len(before), len(after)) == (180, 200)
    assert len(before - after) < 10


@pytest.mark.parametrize('lists, benchmark, expected', [
    (dict(train='ab', val='c', trainval='abc', test='de'), False,
     dict(train='ab', val='c', test='de')),
    (dict(train='ab', test='de'), False, dict(train='ab', val='de')),
    (dict(trainval='abc', test='de'), False, dict(train='abc', val='de')),
    (dict(trainval='abc', val='c'), False, dict(train='ab', val='c')),
    (dict(val='c', test='de'), False, dict(train='ab', val='c', test='de')),
    (dict(train='aab', val='c', test=''), False, dict(train='ab', val='c')),
    (dict(train='ab', val='c', trainval='abc', test='de'), True, dict(train='abc', val='de')),
    (dict(train='ab', val='c', trainval='abc'), True, dict(train='ab', val='c')),
])  # fmt: skip
def test_lists_of_the_data_come_first_and_pascal_voc_has_its_own_rule(lists, benchmark, expected):
    parts = choose_parts(lists, 'abcde', benchmark)
    assert parts.names == {part: list(names) for part, names in expected.items()}
    assert parts.evaluated == ('test' if 'test' in expected else 'val')


# ------------------------------------------------------------------------------------ faults

BOXES = {
    (20, 20, 20, 30): Kind.NO_AREA,
    (20, 30, 30, 20): Kind.NO_AREA,
    (90, 20, 99, 30): Kind.OUTSIDE,
    (-9, -9, -2, -2): Kind.OUTSIDE,
    (70, 20, 90, 30): Kind.ACROSS_THE_EDGE,
    (-9, 20, 10, 30): Kind.ACROSS_THE_EDGE,
    (0, 0, 80, 60): None,
    (1, 1, 81, 61): None,
}


@pytest.mark.parametrize('kind', ['VOC', 'COCO'])
def test_faulty_boxes(kind, tmp_path):
    if kind == 'VOC':
        write_voc(tmp_path, NAMES[: len(BOXES)])
        for name, box in zip(NAMES, BOXES):
            (tmp_path / 'Annotations' / f'{name}.xml').write_text(voc_xml(voc_object(box=box)))
    else:
        document = write_coco(tmp_path / 'all.json', tmp_path / 'JPEGImages', JPEGS[: len(BOXES)])
        for annotation, (x1, y1, x2, y2) in zip(document['annotations'], BOXES):
            annotation['bbox'] = [x1, y1, x2 - x1, y2 - y1]
        save_json(tmp_path / 'all.json', document)
    expected = [(fault, f'JPEGImages/{name}') for fault, name in zip(BOXES.values(), JPEGS)]
    assert sorted(found_faults(tmp_path)) == sorted(item for item in expected if item[0])


UNREADABLE = {  # beside those in docs/data_faults.md
    'empty': '',
    'an encoding that nobody knows': '<?xml version="1.0" encoding="x-no"?><annotation/>',
    'no box': voc_xml('<object><name>cat</name></object>'),
    'no name': voc_xml('<object><bndbox/></object>'),
    'a blank name': voc_xml(voc_object(' ')),
    'no width': '<annotation><size><height>9</height></size></annotation>',
    'neither yes nor no': voc_xml(voc_object(difficult='perhaps')),
}


@pytest.mark.parametrize('case', UNREADABLE)
def test_an_unreadable_annotation_is_left_out(case, tmp_path):
    write_voc(tmp_path, NAMES[:4], dict(train=NAMES[:3], val=NAMES[3:4]))
    (tmp_path / 'Annotations' / 'image 01.xml').write_text(UNREADABLE[case])
    assert found_faults(tmp_path) == [(Kind.NOT_AN_ANNOTATION, 'Annotations/image 01.xml')]
    assert paths(tmp_path)['train'] == ['JPEGImages/image 00.jpg', 'JPEGImages/image 02.jpg']


def test_missing_and_unreadable_images_are_left_out(tmp_path):
    write_voc(tmp_path, NAMES, dict(train=[*NAMES[:6], 'nowhere'], val=NAMES[5:]))
    images = tmp_path / 'JPEGImages'
    (images / JPEGS[0]).unlink()
    (images / JPEGS[1]).write_bytes(b'\xff\xd8\xff\xe0 and what a JPEG has not')
    write_image(images / JPEGS[2], size=(60, 80))
    write_image(images / 'not annotated.jpg')
    kinds = (Kind.NO_IMAGE, Kind.NOT_AN_IMAGE, Kind.OTHER_SIZE)
    assert found_faults(tmp_path) == [
        *((kind, f'JPEGImages/{name}') for kind, name in zip(kinds, JPEGS)),
        (Kind.NO_ANNOTATION, 'Annotations/nowhere.xml'),
        (Kind.ALSO_IN_TRAIN, 'JPEGImages/image 05.jpg'),
    ]
    assert paths(tmp_path)['train'] == [f'JPEGImages/{name}' for name in JPEGS[2:6]]
    notes = recognise(tmp_path).notes
    assert notes == ['Without an annotation, and not used: 1 images.']


def test_of_two_images_of_a_name_the_jpeg_is_taken_and_an_annotation_may_name_another(tmp_path):
    write_voc(tmp_path, NAMES[:2])
    for name in NAMES[:2]:
        write_image(tmp_path / 'JPEGImages' / f'{name}.png')
    assert used(tmp_path) == [f'JPEGImages/{name}' for name in JPEGS[:2]]
    (tmp_path / 'JPEGImages' / JPEGS[0]).unlink()
    (tmp_path / 'JPEGImages' / f'{NAMES[0]}.png').rename(tmp_path / 'JPEGImages' / 'other.png')
    xml = voc_xml(voc_object()).replace('<size>', r'<filename>C:\mine\other.png</filename><size>')
    (tmp_path / 'Annotations' / 'image 00.xml').write_text(xml)
    assert used(tmp_path) == ['JPEGImages/image 01.jpg', 'JPEGImages/other.png']


def test_faults_of_a_coco_json(tmp_path):
    document = write_coco(tmp_path / 'train.json', tmp_path, JPEGS[:6])
    write_coco(tmp_path / 'val.json', tmp_path, JPEGS[5:])
    images, annotations = document['images'], document['annotations']
    (tmp_path / JPEGS[0]).unlink()
    (tmp_path / JPEGS[1]).write_text('no image')
    images[2].update(width=1, height=1)
    annotations[3]['bbox'] = [1, 2, float('nan'), 3]
    annotations[4]['category_id'] = 99
    annotations.append(dict(annotations[5], id=99, bbox=None))
    images += [dict(id=77), dict(images[5], file_name='again.jpg')]
    save_json(tmp_path / 'train.json', document)
    assert found_faults(tmp_path) == [
        (Kind.NOT_AN_ANNOTATION, 'train.json'),
        (Kind.NOT_AN_ANNOTATION, 'again.jpg'),
        (Kind.NO_IMAGE, JPEGS[0]),
        (Kind.NOT_AN_IMAGE, JPEGS[1]),
        (Kind.OTHER_SIZE, JPEGS[2]),
        (Kind.NOT_A_BOX, JPEGS[3]),
        (Kind.UNKNOWN_CLASS, JPEGS[4]),
        (Kind.NOT_A_BOX, JPEGS[5]),
        (Kind.ALSO_IN_TRAIN, JPEGS[5]),
    ]
    data = read(tmp_path)
    file = data.source.write('train', data.images['train'], ['cat', 'dog'], tmp_path / 'out')
    written = json.loads(file.read_text())
    assert [image['file_name'] for image in written['images']] == JPEGS[2:6]
    assert (written['images'][0]['width'], written['images'][0]['height']) == SIZE
    assert [annotation['image_id'] for annotation in written['annotations']] == [2, 5]


# ------------------------------------------------------- what MMDetection's data sets make of it


def build(source, part, classes, file):
    metainfo = dict(classes=tuple(classes))
    return DATASETS.build(dict(source.dataset(part), ann_file=str(file), metainfo=metainfo))


def infos(dataset):
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def labels(dataset):
    """Classes and boxes, by image."""
    found, names = {}, dataset.metainfo['classes']
    for info in infos(dataset):
        boxes = [(names[i['bbox_label']], i['bbox']) for i in info['instances']]
        found[Path(info['img_path']).name] = boxes
    return found


def test_the_list_of_a_voc_folder_is_read_as_it_was_written(tmp_path):
    root = write_voc(tmp_path / 'data', NAMES, suffix='.png', folders=('annotations', 'images'))
    xml = voc_xml(voc_object('dog', difficult=1), voc_object('cow'), size=(0, 0))
    (root / 'annotations' / 'image 00.xml').write_text(xml)
    data = read(root)
    for part, images in data.images.items():
        file = data.source.write(part, images, ['dog', 'cat'], tmp_path / 'out')
        dataset = build(data.source, part, ['dog', 'cat'], file)
        for image in images:
            expected = [(box.name, list(box.bbox)) for box in image.boxes if box.name != 'cow']
            assert labels(dataset)[Path(image.path).name] == expected
        for info in infos(dataset):
            assert Path(info['img_path']).is_file()
            first = 'image 00' in info['img_id']
            assert [i['ignore_flag'] for i in info['instances']] == [int(first)]


@pytest.mark.parametrize('classes', [
    ['cat', 'dog', 'cow'], ['cow', 'cat'], ['dog'], ['dog', 'cat'],
])  # fmt: skip
def test_labels_and_evaluation_of_a_coco_json_are_of_the_classes_in_their_order(classes, tmp_path):
    """Whatever the order of the categories is, and whether they are all there."""
    document = write_coco(tmp_path / 'all.json', tmp_path, JPEGS, classes=('dog', 'cat', 'dog'))
    document['categories'].append(dict(id=90, name='pig'))
    for annotation in document['annotations']:
        annotation['id'] -= 1
        del annotation['area']
    save_json(tmp_path / 'all.json', document)
    source = recognise(tmp_path)
    _, file = write_copy(source, 'val', JPEGS, classes, tmp_path / 'out')
    dataset = build(source, 'val', classes, file)
    assert labels(dataset) == {
        name: [(kind, [10, 10, 40, 30])] if kind in classes else []
        for name, kind in zip(JPEGS, ['dog', 'cat', 'dog'] * 4)
    }
    metric = CocoMetric(ann_file=str(file), classwise=True)
    metric.dataset_meta = dataset.metainfo
    for info in infos(dataset):  # detections without a fault
        found = info['instances']
        bboxes = torch.tensor([i['bbox'] for i in found], dtype=torch.float).reshape(-1, 4)
        labels_of = torch.tensor([i['bbox_label'] for i in found], dtype=torch.long)
        predictions = dict(bboxes=bboxes, labels=labels_of, scores=torch.ones(len(found)))
        sample = dict(img_id=info['img_id'], ori_shape=SIZE[::-1], pred_instances=predictions)
        metric.process({}, [sample])
    results = metric.evaluate(len(dataset))
    assert results['coco/bbox_mAP'] == 1
    assert all(results[f'coco/{name}_precision'] == 1 for name in classes if name != 'cow')


def test_a_coco_json_without_what_evaluation_needs_is_completed(tmp_path):
    document = write_coco(tmp_path / 'all.json', tmp_path, JPEGS[:3])
    document['annotations'][0]['id'] = 0
    document['annotations'][2]['id'] = 2  # as that before has
    for image in document['images']:
        del image['width'], image['height']
    for annotation in document['annotations']:
        del annotation['iscrowd'], annotation['area']
    document['annotations'][2]['area'] = 0
    save_json(tmp_path / 'all.json', document)
    arguments = 'train', JPEGS[:3], ['cat', 'dog'], tmp_path / 'out'
    copy, path = write_copy(recognise(tmp_path), *arguments)
    assert [(image['width'], image['height']) for image in copy['images']] == [SIZE] * 3
    written = [(a['id'], a['area'], a['iscrowd']) for a in copy['annotations']]
    assert written == [(1, 600, 0), (2, 600, 0), (3, 600, 0)]
    path.replace(tmp_path / 'all.json')
    assert write_copy(recognise(tmp_path), *arguments) == (copy, tmp_path / 'all.json')
