"""What a folder is taken for, what is read from it, and what a config becomes on it."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import _own_data as command
import pytest
from mmengine.config import Config
from PIL import Image

from ssd_plugin.datasets import faults
from ssd_plugin.datasets.coco import CocoDocument
from ssd_plugin.datasets.config import leaf_datasets
from ssd_plugin.datasets.faults import image_size
from ssd_plugin.datasets.own_data.coco import copy_for
from ssd_plugin.datasets.own_data.parts import choose_parts
from ssd_plugin.datasets.own_data.recognise import recognise
from ssd_plugin.datasets.own_data.summary import DataSet
from ssd_plugin.errors import DataRootError, SSDPluginError
from tests.support.data_folders import (
    SIZE,
    coco_document,
    save_json,
    voc_object,
    voc_xml,
    write_coco,
    write_image,
    write_voc,
)

TOOLS = Path(__file__).resolve().parents[3] / 'tools'
CONFIGS = TOOLS.parent / 'configs'


NAMES = [f'image {i:02d}' for i in range(10)]


def read(root):
    source = recognise(root)
    return DataSet(source, source.parts.names)


def paths(root):
    """The images that are read, by part."""
    return {part: [p.path for p in images] for part, images in read(root).images.items()}


def found_faults(root):
    """Kinds and paths of all faults."""
    data = read(root)
    return [(fault.kind, fault.path) for _, fault in data.all_faults(data.classes())]


# ----------------------------------------------------------------------------------- layouts


def test_a_voc_style_folder_with_lists(tmp_path):
    lists = dict(train=NAMES[:5], val=NAMES[5:8], trainval=NAMES[:8], test=NAMES[8:])
    data = read(write_voc(tmp_path, NAMES, lists))
    assert data.source.kind == 'VOC'
    assert data.source.description == 'a VOC-style folder'
    assert {part: len(images) for part, images in data.images.items()} == dict(
        train=5, val=3, test=2
    )
    image = data.images['train'][1]
    assert image.path == 'JPEGImages/image 01.jpg'
    assert image.source == 'Annotations/image 01.xml'
    assert image.size == SIZE
    assert [tuple(box) for box in image.boxes] == [('dog', (10, 10, 39, 29), False)]
    assert data.classes() == ['cat', 'dog']
    assert not data.all_faults(['cat', 'dog'])
    assert data.source.notes == []


@pytest.mark.parametrize('suffix', ['.png', '.jpeg', '.bmp', '.JPG'])
def test_folders_in_small_letters_with_images_of_any_type(suffix, tmp_path):
    write_voc(tmp_path, NAMES, suffix=suffix, folders=('annotations', 'images'))
    found = paths(tmp_path)
    assert sorted(found['train'] + found['val']) == [f'images/{name}{suffix}' for name in NAMES]
    assert len(found['val']) == 2


def test_a_devkit_of_several_years_is_trained_and_tested_as_published(tmp_path):
    write_voc(
        tmp_path / 'VOCdevkit' / 'VOC2007', NAMES,
        dict(train=NAMES[:4], val=NAMES[4:6], trainval=NAMES[:6], test=NAMES[6:]),
    )  # fmt: skip
    write_voc(
        tmp_path / 'VOCdevkit' / 'VOC2012', NAMES[:2],
        dict(train=NAMES[:1], val=NAMES[1:2], trainval=NAMES[:2]), suffix='.png',
    )  # fmt: skip
    expected = [f'VOC2007/JPEGImages/{name}.jpg' for name in NAMES[:6]]
    expected += [f'VOC2012/JPEGImages/{name}.png' for name in NAMES[:2]]
    found = paths(tmp_path / 'VOCdevkit')
    assert found['train'] == expected
    assert found['val'] == [f'VOC2007/JPEGImages/{name}.jpg' for name in NAMES[6:]]
    assert paths(tmp_path)['train'] == [f'VOCdevkit/{path}' for path in expected]
    assert recognise(tmp_path).description == 'Pascal VOC (VOC2007, VOC2012)'

    one_year = recognise(tmp_path / 'VOCdevkit' / 'VOC2012')
    assert one_year.benchmark and one_year.description == 'Pascal VOC (VOC2012)'
    assert one_year.parts.names == dict(train=NAMES[:1], val=NAMES[1:2])


def test_lists_may_name_files_and_lie_in_imagesets_itself(tmp_path):
    write_voc(tmp_path, NAMES)
    (tmp_path / 'ImageSets').mkdir()
    (tmp_path / 'ImageSets' / 'training.txt').write_text('image 00.jpg\r\n\r\nimage 01.jpg\r\n')
    (tmp_path / 'ImageSets' / 'valid.txt').write_text('image 02.xml\n')
    (tmp_path / 'ImageSets' / 'cat_train.txt').write_text('image 03  1\n')
    source = recognise(tmp_path)
    assert source.parts.names == dict(train=NAMES[:2], val=NAMES[2:3])
    assert source.notes == ['In no list, and not used: 7 annotations.']


COCO_LAYOUTS = {
    'as COCO': (
        'annotations/instances_train2017.json', 'train2017',
        'annotations/instances_val2017.json', 'val2017',
    ),
    'images/': ('train.json', 'images', 'val.json', 'images'),
    'images/train': ('annotations/train.json', 'images/train', 'annotations/val.json',
                     'images/val'),
    'beside': ('train.json', '.', 'val.json', '.'),
    'a folder each': ('train/_annotations.coco.json', 'train', 'valid/_annotations.coco.json',
                      'valid'),
}  # fmt: skip


@pytest.mark.parametrize('layout', COCO_LAYOUTS)
def test_coco_layouts(layout, tmp_path):
    train_json, train, val_json, val = COCO_LAYOUTS[layout]
    # The same names on both sides, where the folders differ: the right one is to be found.
    names = [f'{name}.jpg' for name in NAMES]
    val_names = names[:3] if train != val else [f'val {name}' for name in names[:3]]
    write_coco(tmp_path / train_json, tmp_path / train, names)
    write_coco(tmp_path / val_json, tmp_path / val, val_names)
    save_json(tmp_path / 'annotations' / 'captions_train2017.json', dict(captions=[]))
    if layout != 'as COCO':
        (tmp_path / 'annotations' / 'captions_train2017.json').unlink()
    data = read(tmp_path)
    assert data.source.kind == 'COCO'
    assert paths(tmp_path) == dict(
        train=[(Path(train) / name).as_posix() for name in names],
        val=[(Path(val) / name).as_posix() for name in val_names],
    )
    assert data.source.dataset('val')['data_prefix'] == dict(img='' if val == '.' else f'{val}/')
    # Nothing is amiss in these, and they are used as they are.
    assert data.source.write('val', data.images['val'], ['cat', 'dog'], tmp_path / 'out') == (
        tmp_path / val_json
    )
    assert not (tmp_path / 'out').exists()


def test_one_json_is_divided(tmp_path):
    write_coco(tmp_path / 'labels.json', tmp_path / 'images', [f'{name}.png' for name in NAMES])
    data = read(tmp_path)
    assert len(data.images['train']) == 8 and len(data.images['val']) == 2
    file = data.source.write('val', data.images['val'], ['cat', 'dog'], tmp_path / 'out')
    written = json.loads(file.read_text())
    assert file == tmp_path / 'out' / 'val.json'
    assert [f'images/{image["file_name"]}' for image in written['images']] == paths(tmp_path)['val']
    kept = {image['id'] for image in written['images']}
    assert {annotation['image_id'] for annotation in written['annotations']} == kept


def test_a_json_may_name_subfolders(tmp_path):
    names = ['images/a/0.jpg', 'images/b/0.jpg', 'images/b/1.jpg']
    write_coco(tmp_path / 'all.json', tmp_path, names)
    found = paths(tmp_path)
    assert sorted(found['train'] + found['val']) == names


def test_tests_alone_are_no_less_a_data_set(tmp_path):
    write_coco(tmp_path / 'test.json', tmp_path / 'images', [f'{name}.jpg' for name in NAMES])
    source = recognise(tmp_path)
    assert source.parts.evaluated == 'val' and len(source.parts.names['val']) == 10
    with pytest.raises(DataRootError, match='no images for train: none'):
        read(tmp_path)


# ------------------------------------------------------------------ folders without a meaning


def error(root):
    with pytest.raises(SSDPluginError) as caught:
        read(root)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_what_was_looked_for_and_found_is_told(tmp_path):
    assert error(tmp_path / 'nowhere') == f'no folder {tmp_path / "nowhere"}'
    assert 'Found nothing' in error(tmp_path)
    write_image(tmp_path / 'photos' / 'a.jpg')
    for name in ('a.txt', 'b.txt', 'LICENSE'):
        (tmp_path / name).touch()
    message = error(tmp_path)
    assert 'Looked for VOC: Annotations/*.xml beside JPEGImages or images' in message
    assert 'COCO: annotations/instances_*.json' in message
    assert 'Found photos/, 2 *.txt, 1 *LICENSE' in message and 'Did you mean' not in message


def test_a_data_set_one_folder_below_is_pointed_to(tmp_path):
    write_voc(tmp_path / 'mine', NAMES[:2])
    assert f'Did you mean {tmp_path / "mine"}?' in error(tmp_path)
    write_coco(tmp_path / 'coco' / 'train.json', tmp_path / 'coco', ['a.jpg'])
    assert f'Did you mean {tmp_path / "coco"}?' in error(tmp_path)


def test_annotations_without_images_are_no_data_set(tmp_path):
    write_voc(tmp_path, NAMES[:2], folders=('Annotations', 'photos'))
    assert 'Found Annotations/, photos/' in error(tmp_path)


@pytest.mark.parametrize(
    'content, expected',
    [
        ('{"images": ', "can't read"),
        ('[]', 'no COCO json'),
        ('{"images": [], "annotations": {}, "categories": []}', 'no COCO json'),
        ('{"images": [1], "annotations": [], "categories": []}', 'no COCO json'),
        ('[' * 100000, "can't read"),
    ],
)
def test_a_json_of_another_kind(content, expected, tmp_path):
    (tmp_path / 'train.json').write_text(content)
    message = error(tmp_path)
    assert expected in message and str(tmp_path / 'train.json') in message


def test_which_json_is_for_training_has_to_be_clear(tmp_path):
    for name in 'abcdef':
        save_json(tmp_path / f'{name}.json', coco_document([]))
    assert 'none is train: a.json, b.json, c.json, d.json, ...; expected' in error(tmp_path)
    for year in (2014, 2017):
        save_json(tmp_path / 'annotations' / f'instances_train{year}.json', coco_document([]))
    message = error(tmp_path)
    assert 'several json files for train: annotations/instances_train2014.json, ' in message


def test_a_data_set_without_a_usable_image(tmp_path):
    write_voc(tmp_path, NAMES)
    for path in (tmp_path / 'JPEGImages').iterdir():
        path.unlink()
    message = error(tmp_path)
    assert 'no images for train: 8 missing images (JPEGImages/image 0' in message


# ------------------------------------------------------------------------------------ parts


def test_a_split_is_the_same_again_in_any_order():
    parts = choose_parts({}, NAMES).names
    assert parts == choose_parts({}, NAMES).names
    assert len(parts['val']) == 2 and sorted(parts['train'] + parts['val']) == NAMES
    backwards = choose_parts({}, NAMES[::-1]).names
    assert sorted(backwards['val']) == sorted(parts['val'])
    assert parts['train'] == [name for name in NAMES if name in parts['train']], 'out of order'


def test_images_stay_in_their_part_when_others_are_added():
    names = [f'{i}' for i in range(1000)]
    before, after = (set(choose_parts({}, names[:n]).names['val']) for n in (900, 1000))
    assert len(before) == 180 and len(after) == 200
    assert len(before - after) < 10


@pytest.mark.parametrize(
    'lists, expected',
    [
        (
            dict(train='ab', val='c', trainval='abc', test='de'),
            dict(train='ab', val='c', test='de'),
        ),
        (dict(train='ab', test='de'), dict(train='ab', val='de')),
        (dict(trainval='abc', test='de'), dict(train='abc', val='de')),
        (dict(trainval='abc', val='c'), dict(train='ab', val='c')),
        (dict(val='c', test='de'), dict(train='ab', val='c', test='de')),
        (dict(train='aab', val='c', test=''), dict(train='ab', val='c')),
    ],
)
def test_lists_of_their_own_come_first(lists, expected):
    parts = choose_parts(lists, 'abcde')
    assert parts.names == {part: list(names) for part, names in expected.items()}
    assert parts.evaluated == ('test' if 'test' in expected else 'val')


def test_a_list_to_train_on_alone_is_divided():
    parts = choose_parts(dict(train=NAMES[:5]), NAMES)
    assert len(parts.names['val']) == 1
    assert sorted(parts.names['train'] + parts.names['val']) == NAMES[:5]
    assert parts.origin == '20% of the images for val, drawn with seed 0'


def test_pascal_voc_itself_is_trained_on_trainval():
    lists = dict(train='ab', val='c', trainval='abc', test='de')
    parts = choose_parts(lists, 'abcde', benchmark=True)
    assert parts.names == dict(train=list('abc'), val=list('de'))
    lists.pop('test')
    assert choose_parts(lists, 'abc', benchmark=True).names == dict(train=list('ab'), val=['c'])


# ------------------------------------------------------------------------------------ faults

BOXES = {
    (20, 20, 20, 30): faults.NO_AREA,
    (20, 30, 30, 20): faults.NO_AREA,
    (90, 20, 99, 30): faults.OUTSIDE,
    (-9, -9, -2, -2): faults.OUTSIDE,
    (70, 20, 90, 30): faults.ACROSS_THE_EDGE,
    (-9, 20, 10, 30): faults.ACROSS_THE_EDGE,
    (0, 0, 80, 60): None,
    (1, 1, 81, 61): None,
}


@pytest.mark.parametrize('box', BOXES)
def test_faulty_boxes_of_voc(box, tmp_path):
    write_voc(tmp_path, NAMES[:2])
    for name in NAMES[:2]:
        (tmp_path / 'Annotations' / f'{name}.xml').write_text(voc_xml(voc_object(box=box)))
    expected = [(BOXES[box], f'JPEGImages/{name}.jpg') for name in NAMES[:2]] if BOXES[box] else []
    assert sorted(found_faults(tmp_path)) == expected


@pytest.mark.parametrize('box', BOXES)
def test_faulty_boxes_of_coco(box, tmp_path):
    document = write_coco(tmp_path / 'all.json', tmp_path, ['a.jpg', 'b.jpg'])
    x1, y1, x2, y2 = box
    for annotation in document['annotations']:
        annotation['bbox'] = [x1, y1, x2 - x1, y2 - y1]
    save_json(tmp_path / 'all.json', document)
    assert [kind for kind, _ in found_faults(tmp_path)] == [BOXES[box]] * 2 * bool(BOXES[box])


BOMB = (
    '<!DOCTYPE b [<!ENTITY a0 "aaaaaaaaaa">'
    + ''.join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    + ']><annotation>&a9;</annotation>'
)
UNREADABLE = {
    'cut short': voc_xml(voc_object())[:-20],
    'empty': '',
    'an entity bomb': BOMB,
    'an encoding that nobody knows': '<?xml version="1.0" encoding="x-no"?><annotation/>',
    'no number': voc_xml(voc_object(box=('nan', 1, 5, 5))),
    'an infinite number': voc_xml(voc_object(box=(1, 1, 'inf', 5))),
    'an empty number': voc_xml(voc_object(box=('', 1, 5, 5))),
    'no box': voc_xml('<object><name>cat</name></object>'),
    'no name': voc_xml('<object><bndbox/></object>'),
    'no width': '<annotation><size><height>9</height></size></annotation>',
    'no yes or no': voc_xml(voc_object(difficult='perhaps')),
}


@pytest.mark.parametrize('case', UNREADABLE)
def test_an_unreadable_annotation_is_left_out(case, tmp_path):
    lists = dict(train=NAMES[:8], val=NAMES[8:])
    write_voc(tmp_path, NAMES, lists)
    (tmp_path / 'Annotations' / 'image 03.xml').write_text(UNREADABLE[case])
    assert found_faults(tmp_path) == [(faults.NOT_AN_ANNOTATION, 'Annotations/image 03.xml')]
    assert 'JPEGImages/image 03.jpg' not in paths(tmp_path)['train']
    assert len(paths(tmp_path)['train']) == 7


def test_missing_and_unreadable_images_are_left_out(tmp_path):
    write_voc(tmp_path, NAMES, dict(train=[*NAMES[:6], 'nowhere'], val=NAMES[5:]))
    images = tmp_path / 'JPEGImages'
    (images / 'image 00.jpg').unlink()
    (images / 'image 01.jpg').write_bytes(b'')
    (images / 'image 02.jpg').write_text('no image')
    (images / 'image 03.jpg').write_bytes(b'\xff\xd8\xff\xe0 and what a JPEG has not')
    write_image(images / 'image 04.jpg', size=(60, 80))
    write_image(images / 'not annotated.jpg')
    assert found_faults(tmp_path) == [
        (faults.NO_IMAGE, 'JPEGImages/image 00.jpg'),
        (faults.NOT_AN_IMAGE, 'JPEGImages/image 01.jpg'),
        (faults.NOT_AN_IMAGE, 'JPEGImages/image 02.jpg'),
        (faults.NOT_AN_IMAGE, 'JPEGImages/image 03.jpg'),
        (faults.OTHER_SIZE, 'JPEGImages/image 04.jpg'),
        (faults.NO_ANNOTATION, 'Annotations/nowhere.xml'),
        (faults.ALSO_IN_TRAIN, 'JPEGImages/image 05.jpg'),
    ]
    assert paths(tmp_path)['train'] == [f'JPEGImages/{name}.jpg' for name in NAMES[4:6]]
    notes = recognise(tmp_path).notes
    assert notes == ['Without an annotation, and not used: 1 images.']


def test_of_two_images_of_a_name_the_jpeg_is_taken(tmp_path):
    write_voc(tmp_path, NAMES[:2])
    for i in range(2):
        write_image(tmp_path / 'JPEGImages' / f'image 0{i}.png')
    found = paths(tmp_path)
    assert sorted(found['train'] + found['val']) == [f'JPEGImages/{n}.jpg' for n in NAMES[:2]]


def test_an_annotation_may_name_its_image(tmp_path):
    write_voc(tmp_path, NAMES[:2])
    (tmp_path / 'JPEGImages' / 'image 00.jpg').rename(tmp_path / 'JPEGImages' / 'other.png')
    xml = voc_xml(voc_object()).replace('<size>', r'<filename>C:\mine\other.png</filename><size>')
    (tmp_path / 'Annotations' / 'image 00.xml').write_text(xml)
    assert sorted(p for part in paths(tmp_path).values() for p in part) == [
        'JPEGImages/image 01.jpg',
        'JPEGImages/other.png',
    ]


def test_the_size_of_a_image_is_that_which_opencv_decodes(tmp_path):
    import cv2

    path = tmp_path / 'turned.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (80, 60)).save(path, exif=exif)
    assert image_size(str(path)) == cv2.imread(str(path)).shape[1::-1] == (60, 80)


def test_faults_of_a_coco_json(tmp_path):
    names = [f'{name}.jpg' for name in NAMES]
    document = write_coco(tmp_path / 'train.json', tmp_path, names[:6])
    write_coco(tmp_path / 'val.json', tmp_path, names[5:])
    images, annotations = document['images'], document['annotations']
    (tmp_path / names[0]).unlink()
    (tmp_path / names[1]).write_text('no image')
    images[2].update(width=1, height=1)
    annotations[3]['bbox'] = [1, 2, float('nan'), 3]
    annotations[4]['category_id'] = 99
    annotations.append(dict(annotations[5], id=99, bbox=None))
    images.append(dict(id=77))
    save_json(tmp_path / 'train.json', document)
    assert found_faults(tmp_path) == [
        (faults.NOT_AN_ANNOTATION, 'train.json'),
        (faults.NO_IMAGE, names[0]),
        (faults.NOT_AN_IMAGE, names[1]),
        (faults.OTHER_SIZE, names[2]),
        (faults.NOT_A_BOX, names[3]),
        (faults.UNKNOWN_CLASS, names[4]),
        (faults.NOT_A_BOX, names[5]),
        (faults.ALSO_IN_TRAIN, names[5]),
    ]
    data = read(tmp_path)
    file = data.source.write('train', data.images['train'], ['cat', 'dog'], tmp_path / 'out')
    written = json.loads(file.read_text())
    assert [image['file_name'] for image in written['images']] == names[2:6]
    assert (written['images'][0]['width'], written['images'][0]['height']) == SIZE
    assert [annotation['image_id'] for annotation in written['annotations']] == [2, 5]


# ------------------------------------------------------- what MMDetection's data sets make of it


def build(source, part, classes, file):
    from mmdet.registry import DATASETS

    import ssd_plugin  # noqa: F401

    return DATASETS.build(
        dict(source.dataset(part), ann_file=str(file), metainfo=dict(classes=tuple(classes)))
    )


def labels(dataset):
    """Names and boxes of the objects, by image."""
    names = dataset.metainfo['classes']
    return {
        Path(info['img_path']).name: [
            (names[i['bbox_label']], i['bbox']) for i in info['instances']
        ]
        for info in map(dataset.get_data_info, range(len(dataset)))
    }


def test_the_list_of_a_voc_folder_is_read_as_it_was_written(tmp_path):
    root = write_voc(tmp_path / 'data', NAMES, suffix='.png', folders=('annotations', 'images'))
    (root / 'annotations' / 'image 00.xml').write_text(
        voc_xml(voc_object('dog', difficult=1), voc_object('cow'), size=(0, 0))
    )
    data = read(root)
    for part, images in data.images.items():
        file = data.source.write(part, images, ['dog', 'cat'], tmp_path / 'out')
        dataset = build(data.source, part, ['dog', 'cat'], file)
        assert labels(dataset) == {
            Path(p.path).name: [(name, list(bbox)) for name, bbox, _ in p.boxes if name != 'cow']
            for p in images
        }
        for info in map(dataset.get_data_info, range(len(dataset))):
            assert Path(info['img_path']).is_file()
            first = 'image 00' in info['img_id']
            assert [i['ignore_flag'] for i in info['instances']] == [int(first)]


@pytest.mark.parametrize('classes', [['cat', 'dog', 'cow'], ['cow', 'cat'], ['dog']])
def test_labels_of_a_coco_json_are_the_classes_in_their_order(classes, tmp_path):
    """Whatever the order of the categories is, and whether they are all there."""
    names = [f'{name}.jpg' for name in NAMES]
    document = write_coco(tmp_path / 'all.json', tmp_path, names, classes=('dog', 'cat', 'dog'))
    document['categories'].append(dict(id=90, name='pig'))
    save_json(tmp_path / 'all.json', document)
    source = recognise(tmp_path)
    images = [source.read('train', name) for name in names]
    file = source.write('train', images, classes, tmp_path / 'out')
    expected = {
        name: [(kind, [10, 10, 40, 30])] if kind in classes else []
        for name, kind in zip(names, ['dog', 'cat', 'dog'] * 4)
    }
    assert labels(build(source, 'train', classes, file)) == expected


def test_a_coco_json_without_what_evaluation_needs_is_completed(tmp_path):
    names = [f'{name}.jpg' for name in NAMES[:3]]
    document = write_coco(tmp_path / 'all.json', tmp_path, names, first_id=0)
    for image in document['images']:
        del image['width'], image['height']
    for annotation in document['annotations']:
        del annotation['iscrowd'], annotation['area']
    document['annotations'][2]['area'] = 0
    save_json(tmp_path / 'all.json', document)
    source = recognise(tmp_path)
    sources = [source.read('train', name) for name in names]
    assert not any(one.faults for one in sources)
    copy = copy_for(source.documents[''], sources, ['cat', 'dog'])
    assert [(image['width'], image['height']) for image in copy['images']] == [SIZE] * 3
    assert [(a['id'], a['area'], a['iscrowd']) for a in copy['annotations']] == [
        (1, 600, 0), (2, 600, 0), (3, 600, 0),
    ]  # fmt: skip
    save_json(tmp_path / 'copy.json', copy)
    assert copy_for(CocoDocument(tmp_path / 'copy.json'), sources, ['cat', 'dog']) == copy


def test_numbers_of_annotations_that_occur_twice_are_given_anew(tmp_path):
    names = [f'{name}.jpg' for name in NAMES[:3]]
    document = write_coco(tmp_path / 'all.json', tmp_path, names)
    document['annotations'][2]['id'] = 1
    save_json(tmp_path / 'all.json', document)
    source = recognise(tmp_path)
    images = [source.read('train', name) for name in names]
    copy = copy_for(source.documents[''], images, ['cat', 'dog'])
    assert [annotation['id'] for annotation in copy['annotations']] == [1, 2, 3]


@pytest.mark.parametrize('classes', [['cat', 'dog', 'cow'], ['dog', 'cat'], ['cat']])
def test_detections_without_a_fault_are_found_to_be_so(classes, tmp_path):
    """Labels of the data set, and categories of the evaluation, are of the same classes."""
    import torch
    from mmdet.evaluation import CocoMetric

    names = [f'{name}.jpg' for name in NAMES]
    document = write_coco(
        tmp_path / 'all.json', tmp_path, names, classes=('dog', 'cow', 'cat'), first_id=0
    )
    for annotation in document['annotations']:
        del annotation['area']
    save_json(tmp_path / 'all.json', document)
    source = recognise(tmp_path)
    images = [source.read('val', name) for name in names]
    file = source.write('val', images, classes, tmp_path / 'out')
    dataset = build(source, 'val', classes, file)
    metric = CocoMetric(ann_file=str(file), classwise=True)
    metric.dataset_meta = dataset.metainfo
    for info in map(dataset.get_data_info, range(len(dataset))):
        found = info['instances']
        predictions = dict(
            bboxes=torch.tensor([i['bbox'] for i in found], dtype=torch.float).reshape(-1, 4),
            labels=torch.tensor([i['bbox_label'] for i in found], dtype=torch.long),
            scores=torch.ones(len(found)),
        )
        sample = dict(img_id=info['img_id'], ori_shape=SIZE[::-1], pred_instances=predictions)
        metric.process({}, [sample])
    results = metric.evaluate(len(dataset))
    assert results['coco/bbox_mAP'] == 1
    assert [results[f'coco/{name}_precision'] for name in classes] == [1] * len(classes)


# ------------------------------------------------------------------------------------ config


def arguments(config_file, root, **changes):
    args = dict(
        config=str(config_file), data_root=str(root), classes=None, cfg_options=None,
        launcher='none', work_dir=None, strict=False,
    )  # fmt: skip
    return SimpleNamespace(**(args | changes))


def fit(config_file, root, work_dir, **changes):
    """The config that training gets."""
    import _common

    args = arguments(config_file, root, work_dir=str(work_dir), **changes)
    return command.fit_for_training(_common.load_config(args), args)


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
    root = tmp_path_factory.mktemp('voc') / 'my pets'
    return write_voc(root, NAMES, dict(train=NAMES[:6], val=NAMES[6:8], test=NAMES[8:]))


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    root = tmp_path_factory.mktemp('coco')
    for part, names in (('train', NAMES[:6]), ('val', NAMES[6:])):
        images = root / 'images'
        write_coco(root / f'{part}.json', images, [f'{name}.jpg' for name in names])
    return root


ALL_CONFIGS = sorted(CONFIGS.glob('*.py'))


def types(pipeline):
    return [step['type'] for step in pipeline]


@pytest.mark.parametrize('path', ALL_CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains_on_a_voc_folder(path, voc, tmp_path):
    import ssd_plugin  # noqa: F401 - for configs that inherit from MMDetection's

    original, cfg = Config.fromfile(path), fit(path, voc, tmp_path)
    assert cfg.model.bbox_head.num_classes == 2
    assert 'prepare_data' not in cfg
    for split, names in (('train', NAMES[:6]), ('val', NAMES[6:8]), ('test', NAMES[8:])):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.type == 'VOCListDataset'
        assert dataset.data_root == f'{voc}/'
        assert tuple(dataset.metainfo.classes) == ('cat', 'dog')
        assert Path(dataset.ann_file).read_text().splitlines() == [
            f'JPEGImages/{name}.jpg\tAnnotations/{name}.xml' for name in names
        ]
        old = leaf_datasets(original[f'{split}_dataloader'].dataset)[0]
        assert bool(dataset.get('test_mode')) == bool(old.get('test_mode')) == (split != 'train')
        kept = [step for step in dataset.pipeline if step.type != 'TrainOnDifficult']
        assert kept == [step for step in old.pipeline if step.type != 'TrainOnDifficult']
        assert ('TrainOnDifficult' in types(dataset.pipeline)) == (split == 'train')
        # Some annotations say a size of 0: they are not to be left out for it.
        assert 'min_size' not in (dataset.get('filter_cfg') or {})
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.type in ('VOCDetMetric', 'VOCMetric')
        assert evaluator.eval_mode == 'area'
    assert cfg.train_dataloader.batch_size <= 6


@pytest.mark.parametrize('path', ALL_CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains_on_a_coco_json(path, coco, tmp_path):
    import ssd_plugin  # noqa: F401 - for configs that inherit from MMDetection's

    original, cfg = Config.fromfile(path), fit(path, coco, tmp_path)
    assert cfg.model.bbox_head.num_classes == 2
    for split, part in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert (dataset.type, dataset.data_prefix) == ('CheckedCocoDataset', dict(img='images/'))
        assert dataset.ann_file == f'{coco}/{part}.json'
        old = leaf_datasets(original[f'{split}_dataloader'].dataset)[0]
        assert dataset.get('filter_cfg') == old.get('filter_cfg')
        assert dataset.pipeline == [s for s in old.pipeline if s.type != 'TrainOnDifficult']
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert (evaluator.type, evaluator.ann_file) == ('CocoMetric', f'{coco}/val.json')


def test_a_benchmark_keeps_its_own_rule_of_evaluation(tmp_path):
    root = write_voc(tmp_path / 'VOC2007', NAMES, dict(trainval=NAMES[:8], test=NAMES[8:]))
    cfg = fit(CONFIGS / 'ssd300_voc.py', root, tmp_path / 'work')
    assert cfg.val_evaluator.eval_mode == '11points'


def test_evaluators_for_this_kind_of_data_are_kept(voc, coco, tmp_path):
    path = tmp_path / 'two.py'
    path.write_text(f"""
_base_ = '{CONFIGS / 'ssd300_coco.py'}'
val_evaluator = [
    dict(_base_.val_evaluator, classwise=True),
    dict(type='VOCDetMetric', iou_thrs=[0.5, 0.75]),
]
test_evaluator = val_evaluator""")
    first, second = fit(path, coco, tmp_path / 'work').val_evaluator
    assert first == dict(
        type='CocoMetric', metric='bbox', classwise=True, ann_file=f'{coco}/val.json'
    )
    assert second.iou_thrs == [0.5, 0.75]
    assert fit(path, voc, tmp_path / 'work').val_evaluator.type == 'VOCDetMetric'


def test_repetitions_stay_and_concatenations_go(voc, tmp_path):
    path = tmp_path / 'repeated.py'
    path.write_text(f"""
_base_ = '{CONFIGS / 'ssd300_voc.py'}'
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=3,
                                     dataset=_base_.train_dataloader.dataset))""")
    dataset = fit(path, voc, tmp_path / 'work').train_dataloader.dataset
    assert (dataset.type, dataset.times) == ('RepeatDataset', 3)
    assert dataset.dataset.type == 'VOCListDataset'


def test_a_model_of_another_make_is_refused_in_a_line(voc, tmp_path, capsys):
    path = tmp_path / 'other.py'
    path.write_text(f"_base_ = '{CONFIGS / 'demo_shapes.py'}'\nmodel = dict(_delete_=True)")
    with pytest.raises(SystemExit, match=r'needs model\.bbox_head\.num_classes in .*other\.py'):
        fit(path, voc, tmp_path / 'work')


# ----------------------------------------------------------------------------------- classes


def test_classes_are_narrowed_in_the_order_that_the_user_says(tmp_path, capsys):
    root = write_voc(tmp_path / 'data', NAMES, classes=('cat', 'dog', 'cow'))
    cfg = fit(CONFIGS / 'demo_shapes.py', root, tmp_path / 'work', classes=['dog', 'cat'])
    assert cfg.train_dataloader.dataset.metainfo.classes == ('dog', 'cat')
    assert cfg.classes == ('dog', 'cat')
    assert cfg.model.bbox_head.num_classes == 2
    rows = {row[0]: row[1:] for row in table_rows(capsys.readouterr().out)}
    assert list(rows)[1:3] == ['dog', 'cat']
    assert sum(map(int, rows['other classes, left out'])) == 3
    assert sum(map(int, rows['cat'])) == 4


def table_rows(output):
    """The cells of each row of the table."""
    rows = [line.strip('│ ').split('│') for line in output.splitlines() if line.startswith('│')]
    return [[cell.strip() for cell in row] for row in rows]


def test_a_config_s_order_stands_where_its_classes_are_the_same(tmp_path):
    names = ('circle', 'square', 'triangle', 'star', 'cross')
    root = write_voc(tmp_path / 'data', NAMES, classes=names)
    cfg = fit(CONFIGS / 'demo_shapes.py', root, tmp_path / 'work')
    assert cfg.train_dataloader.dataset.metainfo.classes == names
    cfg = fit(CONFIGS / 'ssd300_voc.py', root, tmp_path / 'work')
    assert cfg.train_dataloader.dataset.metainfo.classes == tuple(sorted(names))


def test_classes_that_are_not_there(voc, coco, tmp_path):
    for root in (voc, coco):
        with pytest.raises(SystemExit, match='has no cow, pig; it has cat, dog$'):
            fit(CONFIGS / 'demo_shapes.py', root, tmp_path, classes=['cow', 'cat', 'pig'])


def test_objects_to_train_on_are_needed(tmp_path, capsys):
    root = write_voc(tmp_path / 'none', NAMES)
    for path in (root / 'Annotations').iterdir():
        path.write_text(voc_xml())
    with pytest.raises(SystemExit, match='there are images, but no objects'):
        fit(CONFIGS / 'demo_shapes.py', root, tmp_path / 'work')
    root = write_voc(tmp_path / 'val', NAMES[:4], dict(train=NAMES[:3:2], val=NAMES[1:4:2]))
    with pytest.raises(SystemExit, match='no dog to train on'):
        fit(CONFIGS / 'demo_shapes.py', root, tmp_path / 'work', classes=['dog'])
    fit(CONFIGS / 'demo_shapes.py', root, tmp_path / 'work')
    assert 'Nothing to train on: dog.' in capsys.readouterr().out


# --------------------------------------------------------------- batch, learning rate, schedule


@pytest.mark.parametrize(
    'name, options, expected',
    [
        ('ssd300_voc', {}, '0.001, as the config has it for batches of 32'),
        ('ssdlite320_mobilenetv2_coco', {}, '0.001875 for batches of 24; the config has 0.015 for '
         'batches of 192'),
        ('demo_shapes', {}, '0.06, as the config has it for batches of 8'),
        ('demo_shapes', {'train_dataloader.batch_size': 4}, '0.03 for batches of 4'),
        ('demo_shapes', {'optim_wrapper.optimizer.lr': 0.5}, '0.5, as --cfg-options have it'),
        ('ssd300_voc', {'auto_scale_lr.enable': False}, '0.001, as --cfg-options have it'),
    ],
)  # fmt: skip
def test_the_learning_rate_goes_with_the_batch(name, options, expected, tmp_path, capsys):
    names = [f'{i}' for i in range(50)]
    root = write_voc(tmp_path / 'data', names)
    cfg = fit(CONFIGS / f'{name}.py', root, tmp_path / 'work', cfg_options=options)
    assert f'Learning rate: {expected}' in capsys.readouterr().out
    assert cfg.get('auto_scale_lr', {}).get('enable', False) is ('--cfg-options' not in expected)


def test_the_batch_is_that_of_all_processes(tmp_path, capsys, monkeypatch):
    root = write_voc(tmp_path / 'data', [f'{i}' for i in range(50)])
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('RANK', '0')
    fit(CONFIGS / 'demo_shapes.py', root, tmp_path / 'work', launcher='pytorch')
    output = capsys.readouterr().out
    assert 'Learning rate: 0.12 for batches of 16' in output
    assert '26 epochs of 3 iterations' in output
    monkeypatch.setenv('RANK', '1')
    fit(CONFIGS / 'demo_shapes.py', root, tmp_path / 'work', launcher='pytorch')
    assert capsys.readouterr().out == '', 'one of them tells'


def test_a_batch_is_no_larger_than_the_data_set(voc, tmp_path, capsys):
    cfg = fit(CONFIGS / 'ssd300_voc.py', voc, tmp_path)
    assert cfg.train_dataloader.batch_size == 6
    output = capsys.readouterr().out
    assert 'Batch: 6 images a process, since there are no more.' in output
    assert 'Learning rate: 0.0001875 for batches of 6' in output


def test_images_without_objects_do_not_count_where_training_leaves_them_out(tmp_path):
    root = write_voc(tmp_path / 'data', NAMES, dict(train=NAMES[:8], val=NAMES[8:]))
    (root / 'Annotations' / 'image 00.xml').write_text(voc_xml())
    cfg = fit(CONFIGS / 'ssd300_voc.py', root, tmp_path / 'work')
    assert cfg.train_dataloader.batch_size == 7
    assert fit(CONFIGS / 'demo_shapes.py', root, tmp_path / 'work').train_dataloader.batch_size == 8


def test_no_batch_of_one_ends_an_epoch(tmp_path, capsys):
    root = write_voc(tmp_path / 'data', NAMES[:9], dict(train=NAMES[:9], val=NAMES[:1]))
    cfg = fit(CONFIGS / 'demo_shapes.py', root, tmp_path / 'work')
    assert cfg.train_dataloader.drop_last is True
    output = capsys.readouterr().out
    assert "an epoch's last, of one image, is left out" in output
    assert 'Schedule: 26 epochs of 1 iterations' in output


def test_a_schedule_in_iterations_is_kept_and_a_shorter_one_proposed(voc, tmp_path, capsys):
    cfg = fit(CONFIGS / 'ssd300_voc.py', voc, tmp_path)
    assert cfg.train_cfg.max_iters == 120000
    output = capsys.readouterr().out
    assert '120000 iterations of 6 images, as the config has it: 120000 passes over 6' in output
    proposal = 'train_cfg.max_iters=1000 param_scheduler.1.milestones=[667,833]'
    assert f'--cfg-options {proposal}\n' in output
    options = {'train_cfg.max_iters': 1000, 'param_scheduler.1.milestones': [667, 833]}
    cfg = fit(CONFIGS / 'ssd300_voc.py', voc, tmp_path, cfg_options=options)
    assert cfg.train_cfg.max_iters == 1000 and cfg.param_scheduler[1].milestones == [667, 833]
    assert '1000 passes over 6 images.\n' in capsys.readouterr().out


def test_options_of_the_user_win(voc, tmp_path):
    options = {
        'val_evaluator.eval_mode': '11points',
        'train_dataloader.dataset.filter_cfg': dict(filter_empty_gt=False),
        'randomness.seed': 7,
    }
    cfg = fit(CONFIGS / 'ssd300_voc.py', voc, tmp_path, cfg_options=options)
    assert cfg.val_evaluator.eval_mode == '11points'
    assert cfg.train_dataloader.dataset.filter_cfg == dict(filter_empty_gt=False)
    assert cfg.randomness.seed == 7
    assert fit(CONFIGS / 'ssd300_voc.py', voc, tmp_path).randomness.seed == 0


# ----------------------------------------------------------------- classes of a checkpoint


@pytest.fixture
def checkpoint(tmp_path):
    import torch

    path = tmp_path / 'checkpoint.pth'
    torch.save(dict(meta=dict(dataset_meta=dict(classes=('dog', 'cat'))), state_dict={}), path)
    return str(path)


def test_classes_are_those_of_the_checkpoint(checkpoint, tmp_path):
    import torch

    assert command.classes_of(checkpoint, None) == ['dog', 'cat']
    assert command.classes_of(checkpoint, ['dog', 'cat']) == ['dog', 'cat']
    with pytest.raises(DataRootError, match='^--classes has cat, dog, .* dog, cat$'):
        command.classes_of(checkpoint, ['cat', 'dog'])
    nameless = str(tmp_path / 'nameless.pth')
    torch.save(dict(state_dict={}), nameless)
    assert command.classes_of(nameless, ['cat', 'dog']) == ['cat', 'dog']
    with pytest.raises(DataRootError, match="doesn't name its classes"):
        command.classes_of(nameless, None)


def fit_test(root, checkpoint, work_dir):
    """The config that testing gets."""
    import _common

    args = arguments(
        CONFIGS / 'demo_shapes.py', root, work_dir=str(work_dir), checkpoint=checkpoint
    )
    cfg = _common.load_config(args)
    command.fit_for_testing(cfg, args, command.read_for_testing(args))
    return cfg


def test_testing_takes_the_test_part_and_counts_what_the_detector_does_not_know(
    checkpoint, tmp_path, capsys
):
    lists = dict(train=NAMES[:4], val=NAMES[4:6], test=NAMES[6:])
    root = write_voc(tmp_path / 'data', NAMES, lists, classes=('cat', 'pig'))
    cfg = fit_test(root, checkpoint, tmp_path / 'work')
    assert cfg.test_dataloader.dataset.metainfo.classes == ('dog', 'cat')
    assert Path(cfg.test_dataloader.dataset.ann_file).read_text().count('\n') == 4
    assert cfg.model.bbox_head.num_classes == 2
    assert table_rows(capsys.readouterr().out) == [
        ['images', '4'], ['dog', '0'], ['cat', '2'], ['other classes, left out', '2'],
    ]  # fmt: skip


def test_testing_without_a_test_part_takes_that_for_validation(checkpoint, coco, tmp_path):
    cfg = fit_test(coco, checkpoint, tmp_path / 'work')
    file = str(tmp_path / 'work' / 'test_data' / 'val.json')
    assert cfg.test_dataloader.dataset.ann_file == cfg.test_evaluator.ann_file == file
    categories = json.loads(Path(file).read_text())['categories']
    assert [category['name'] for category in categories] == ['dog', 'cat']


def test_a_folder_of_other_classes_is_refused(checkpoint, tmp_path):
    root = write_voc(tmp_path / 'data', NAMES, classes=('pig', 'cow'))
    with pytest.raises(SystemExit, match='data has cow, pig, and the checkpoint knows dog, cat$'):
        fit_test(root, checkpoint, tmp_path / 'work')


# ------------------------------------------------------------------- what is told and written


def test_what_was_found_is_told_and_written_down(voc, tmp_path, capsys):
    root = write_voc(tmp_path / '[data]', NAMES, dict(train=NAMES[:8], val=NAMES[8:]))
    (root / 'Annotations' / 'image 00.xml').write_text(
        voc_xml(voc_object('[b]cat', box=(9, 9, 9, 20)), voc_object('dog', difficult=1))
    )
    (root / 'Annotations' / 'image 01.xml').write_text('<annotation>')
    cfg = fit(CONFIGS / 'demo_shapes.py', root, tmp_path / 'work')
    output = capsys.readouterr().out
    assert f'{root}: a VOC-style folder' in output
    assert table_rows(output) == [
        ['images', '7', '2'],
        ['[b]cat', '1', '0'],
        ['cat', '3', '1'],
        ['dog', '4', '1'],
        ['of these, difficult', '1', '0'],
        ['boxes without area', '1', '0'],
        ['unreadable annotations', '1', '0'],
    ]
    assert "Parts: the data's own, train, val." in output
    written = tmp_path / 'work' / 'data'
    assert (written / 'summary.txt').read_text().split() == output.split()
    assert (written / 'faults.txt').read_text().splitlines() == [
        'train\tAnnotations/image 01.xml\tunreadable annotations\tno element found: line 1, '
        'column 12',
        'train\tJPEGImages/image 00.jpg\tboxes without area\t[b]cat (8, 8, 8, 19) in 80 x 60',
    ]
    assert sorted(path.name for path in written.iterdir()) == [
        'faults.txt', 'summary.txt', 'train.txt', 'val.txt',
    ]  # fmt: skip
    assert cfg.filename == 'demo_shapes_on__data_.py'
    assert f'python tools/train.py {tmp_path / "work" / cfg.filename}\n' in output

    for name in NAMES[:2]:
        (root / 'Annotations' / f'{name}.xml').write_text(voc_xml(voc_object()))
    fit(CONFIGS / 'demo_shapes.py', root, tmp_path / 'work')
    assert not (written / 'faults.txt').exists()


def test_a_config_that_was_fitted_keeps_its_name(voc, tmp_path):
    cfg = fit(CONFIGS / 'demo_shapes.py', voc, tmp_path)
    assert cfg.filename == 'demo_shapes_on_my_pets.py'
    cfg.dump(str(tmp_path / cfg.filename))
    again = fit(tmp_path / cfg.filename, voc, tmp_path)
    assert again.filename == cfg.filename
    assert again.to_dict() == cfg.to_dict()


def test_a_config_that_was_fitted_may_be_a_base(voc, tmp_path):
    """As docs/your_data.md shows it."""
    page = (CONFIGS.parent / 'docs' / 'your_data.md').read_text()
    code = page.split('## Going on with a config')[1].split('```python\n')[1].split('```')[0]
    work_dir = tmp_path / 'work_dirs' / 'demo_shapes'
    work_dir.mkdir(parents=True)
    fit(CONFIGS / 'demo_shapes.py', voc, work_dir).dump(str(work_dir / 'demo_shapes_on_shapes.py'))
    (tmp_path / 'longer.py').write_text(code)
    cfg = Config.fromfile(tmp_path / 'longer.py', import_custom_modules=False)
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.type) == (50, 'EpochBasedTrainLoop')
    assert cfg.work_dir == 'work_dirs/longer'
    assert cfg.train_dataloader.dataset.type == 'VOCListDataset'


def test_a_work_dir_that_can_not_be_written_ends_in_a_line(voc, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit, match='--data-root: .*file'):
        fit(CONFIGS / 'demo_shapes.py', voc, tmp_path / 'file')


def test_many_images_are_read_in_seconds(tmp_path):
    """Under a bar, from the number on that it is for."""
    code = (
        'import sys, time; sys.path[:0] = [sys.argv[1]]; from pathlib import Path;'
        'from _own_data import progress, recognise, DataSet; start = time.monotonic();'
        'source = recognise(Path(sys.argv[2])); jobs = source.parts.names;'
        'data = DataSet(source, jobs, progress(0)); print(time.monotonic() - start)'
    )
    root = write_voc(tmp_path / 'data', NAMES[:1])
    for i in range(2500):
        (root / 'JPEGImages' / f'{i}.jpg').hardlink_to(root / 'JPEGImages' / f'{NAMES[0]}.jpg')
        (root / 'Annotations' / f'{i}.xml').hardlink_to(root / 'Annotations' / f'{NAMES[0]}.xml')
    done = subprocess.run(
        [sys.executable, '-c', code, str(TOOLS), str(root)],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 20
