"""What is read from annotations, what is left out, and what is told about it."""

import time

import pytest
from mmdet.datasets import VOCDataset

from ssd_plugin.datasets.faults import Kind
from ssd_plugin.datasets.own_data.recognise import recognise
from ssd_plugin.datasets.own_data.summary import DataSet, notes_on_classes
from ssd_plugin.datasets.voc import read_annotation
from tests.support.data_folders import (
    JPEGS,
    NAMES,
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


def found_faults(root):
    """Kinds and paths of all faults."""
    data = read(root)
    return [(fault.kind, fault.path) for _, fault in data.all_faults(data.classes())]


def xml_of(path, *objects):
    path.write_text(voc_xml(*objects))
    return read_annotation(str(path))


def yolo(root, text, names='cat\ndog\n'):
    """Two images, of which the first has these labels."""
    for name in 'ab':
        write_image(root / f'images/{name}.jpg')
    (root / 'labels').mkdir()
    (root / 'labels/a.txt').write_text(text)
    (root / 'labels/b.txt').write_text('1 0.5 0.5 0.5 0.5')
    if names:
        (root / 'classes.txt').write_text(names)
    source = recognise(root)
    return source, source.read('train', 'images/a.jpg')


# ----------------------------------------------------------------------------------------- VOC


@pytest.mark.parametrize('text, expected', [
    ('0', False), ('1', True), ('', False), (' ', False), ('Unspecified', False), ('False', False),
    ('True', True), ('0.0', False), ('1.0', True), ('perhaps', False),
])  # fmt: skip
def test_difficult_as_tools_write_it(text, expected, tmp_path):
    image = xml_of(tmp_path / 'a.xml', voc_object(difficult=text))
    assert [box.ignored for box in image.boxes] == [expected] and not image.faults


def test_an_object_that_cannot_be_read_is_left_out_and_the_others_stay(tmp_path):
    broken = {
        voc_object(' '): Kind.NO_NAME,
        '<object><bndbox/></object>': Kind.NOT_A_BOX,
        '<object><name>cat</name></object>': Kind.NOT_A_BOX,
        voc_object(box=('x', 1, 2, 3)): Kind.NOT_A_BOX,
        voc_object(box=(1, 1, 'inf', 3)): Kind.NOT_A_BOX,
    }
    image = xml_of(tmp_path / 'a.xml', voc_object(' cat\n'), *broken, voc_object('dog'))
    assert [box.name for box in image.boxes] == ['cat', 'dog']
    assert [fault.kind for fault in image.faults] == list(broken.values())


def test_fractions_are_kept_and_whole_numbers_are_as_in_mmdetection(tmp_path):
    boxes = (11, 12, 40, 30), (22.25, 25.5, 40.75, 33), ('7.0', '8', '9.00', '12')
    write_voc(tmp_path, NAMES[:1], dict(train=NAMES[:1]))
    path = tmp_path / 'Annotations' / f'{NAMES[0]}.xml'
    path.write_text(voc_xml(*(voc_object('cat', box) for box in boxes)))
    ours = [box.bbox for box in read_annotation(str(path)).boxes]
    assert ours == [(10, 11, 39, 29), (21.25, 24.5, 39.75, 32), (6, 7, 8, 11)]
    folder = dict(sub_data_root=str(tmp_path))
    lists = str(tmp_path / 'ImageSets/Main/train.txt')
    theirs = VOCDataset(ann_file=lists, data_prefix=folder, metainfo=dict(classes=('cat',)))
    theirs = [tuple(instance['bbox']) for instance in theirs[0]['instances']]
    assert [theirs[0], theirs[2]] == [ours[0], ours[2]]
    assert theirs[1] == tuple(int(corner + 1) - 1 for corner in ours[1])


UNREADABLE = {  # beside those in docs/data_faults.md
    'empty': '',
    'an encoding that nobody knows': '<?xml version="1.0" encoding="x-no"?><annotation>\xe9',
    'cut off': voc_xml(voc_object())[:-30],
}


@pytest.mark.parametrize('case', UNREADABLE)
def test_an_unreadable_annotation_is_left_out(case, tmp_path):
    write_voc(tmp_path, NAMES[:4], dict(train=NAMES[:3], val=NAMES[3:4]))
    (tmp_path / 'Annotations' / 'image 01.xml').write_text(UNREADABLE[case])
    assert found_faults(tmp_path) == [(Kind.NOT_AN_ANNOTATION, 'Annotations/image 01.xml')]
    images = [image.path for image in read(tmp_path).images['train']]
    assert images == ['JPEGImages/image 00.jpg', 'JPEGImages/image 02.jpg']


@pytest.mark.parametrize('encoding', ['gbk', 'latin-1', 'utf-16', 'utf-8-sig'])
def test_names_in_the_encoding_that_the_file_declares(encoding, tmp_path):
    name = 'café' if encoding == 'latin-1' else '猫'
    declared = encoding.removesuffix('-sig')
    text = f'<?xml version="1.0" encoding="{declared}"?>' + voc_xml(voc_object(name))
    (tmp_path / 'a.xml').write_text(text, encoding=encoding)
    assert [box.name for box in read_annotation(str(tmp_path / 'a.xml')).boxes] == [name]


def test_missing_and_unreadable_images_are_left_out(tmp_path):
    write_voc(tmp_path, NAMES, dict(train=[*NAMES[:6], 'nowhere'], val=NAMES[5:]))
    images = tmp_path / 'JPEGImages'
    (images / JPEGS[0]).unlink()
    (images / JPEGS[1]).write_bytes(b'\xff\xd8\xff\xe0 and what a JPEG has not')
    write_image(images / JPEGS[2], size=(60, 80))
    (tmp_path / 'Annotations/image 03.xml').unlink()
    write_image(images / 'not annotated.jpg')
    assert found_faults(tmp_path) == [
        (Kind.NO_IMAGE, 'Annotations/image 00.xml'),
        (Kind.NOT_AN_IMAGE, f'JPEGImages/{JPEGS[1]}'),
        (Kind.OTHER_SIZE, f'JPEGImages/{JPEGS[2]}'),
        (Kind.NO_ANNOTATION, f'JPEGImages/{JPEGS[3]}'),
        (Kind.NO_IMAGE, 'nowhere'),
        (Kind.ALSO_IN_TRAIN, 'JPEGImages/image 05.jpg'),
    ]
    data = read(tmp_path)
    assert [i.path for i in data.images['train']] == [f'JPEGImages/{JPEGS[i]}' for i in (2, 4, 5)]
    expected = 'Without annotation, and not used: 1 images (JPEGImages/not annotated.jpg).'
    assert data.source.notes == [expected]


def test_an_image_has_the_stem_of_its_xml_or_the_name_in_it(tmp_path):
    """Of two images with the stem, the JPEG is taken."""
    write_voc(tmp_path, NAMES[:2])
    for name in NAMES[:2]:
        write_image(tmp_path / 'JPEGImages' / f'{name}.png')
    assert recognise(tmp_path).reader.images == [f'JPEGImages/{name}' for name in JPEGS[:2]]
    (tmp_path / 'JPEGImages' / JPEGS[0]).unlink()
    (tmp_path / 'JPEGImages' / f'{NAMES[0]}.png').rename(tmp_path / 'JPEGImages' / 'other.png')
    xml = voc_xml(voc_object()).replace('<size>', r'<filename>C:\mine\other.png</filename><size>')
    (tmp_path / 'Annotations' / 'image 00.xml').write_text(xml)
    assert recognise(tmp_path).reader.images == [
        'JPEGImages/image 01.jpg', 'JPEGImages/other.png'
    ]  # fmt: skip


def test_an_image_is_found_by_its_name_with_a_suffix_or_other_accents(tmp_path):
    """An annotation may be called a.jpg.xml; macOS writes accents as characters of their own."""
    write_voc(tmp_path, [NAMES[0], 'cafe\u0301'])
    (tmp_path / f'Annotations/{NAMES[0]}.xml').rename(tmp_path / f'Annotations/{JPEGS[0]}.xml')
    (tmp_path / 'Annotations/cafe\u0301.xml').rename(tmp_path / 'Annotations/caf\u00e9.xml')
    assert len(recognise(tmp_path).reader.images) == 2


def test_of_masks_and_photographs_with_one_stem_the_one_that_the_xml_names_is_taken(tmp_path):
    write_voc(tmp_path, NAMES[:2], folders=('annots', 'photos'))
    for name in NAMES[:2]:
        write_image(tmp_path / f'masks/{name}.png')
        path = tmp_path / f'annots/{name}.xml'
        xml = voc_xml(voc_object()).replace('<size>', f'<filename>{name}.jpg</filename><size>')
        path.write_text(xml)
    assert recognise(tmp_path).reader.images == [f'photos/{name}' for name in JPEGS[:2]]


def test_an_image_that_several_fit_as_well_is_missing(tmp_path):
    write_coco(tmp_path / 'all.json', tmp_path / 'left', JPEGS[:4])
    write_image(tmp_path / 'right' / JPEGS[0])
    [fault] = recognise(tmp_path).missing['train']
    assert (fault.kind, fault.path) == (Kind.NO_IMAGE, JPEGS[0])


# ---------------------------------------------------------------------------------------- COCO


def test_faults_of_a_coco_json(tmp_path):
    document = write_coco(tmp_path / 'train.json', tmp_path, JPEGS[:6])
    write_coco(tmp_path / 'val.json', tmp_path, JPEGS[5:])
    images, annotations = document['images'], document['annotations']
    (tmp_path / JPEGS[0]).unlink()
    (tmp_path / JPEGS[1]).write_text('no image')
    images[2].update(width=1, height=1)
    annotations[3]['bbox'] = [1, 2, float('nan'), 3]
    annotations[4]['category_id'] = 99
    annotations += [dict(annotations[5], id=99, bbox=None), dict(annotations[5], image_id=50)]
    images += [dict(id=77), dict(images[5], file_name='again.jpg')]
    save_json(tmp_path / 'train.json', document)
    assert found_faults(tmp_path) == [
        (Kind.NOT_AN_ANNOTATION, 'train.json'),
        (Kind.NOT_AN_ANNOTATION, 'again.jpg'),
        (Kind.UNKNOWN_IMAGE, 'train.json'),
        (Kind.NO_IMAGE, JPEGS[0]),
        (Kind.NOT_AN_IMAGE, JPEGS[1]),
        (Kind.OTHER_SIZE, JPEGS[2]),
        (Kind.NOT_A_BOX, JPEGS[3]),
        (Kind.UNKNOWN_CLASS, JPEGS[4]),
        (Kind.NOT_A_BOX, JPEGS[5]),
        (Kind.ALSO_IN_TRAIN, JPEGS[5]),
    ]
    assert [image.path for image in read(tmp_path).images['train']] == JPEGS[2:6]


def test_roboflows_name_for_all_classes_is_none_and_other_empty_categories_stay(tmp_path):
    document = write_coco(tmp_path / 'all.json', tmp_path, JPEGS)
    for category in document['categories']:
        category['supercategory'] = 'pets'
    document['categories'][:0] = [dict(id=0, name='pets', supercategory='none')]
    document['categories'].append(dict(id=9, name=' cow ', supercategory='none'))
    save_json(tmp_path / 'all.json', document)
    data = read(tmp_path)
    assert data.classes() == ['cat', 'dog', 'cow']
    assert list(notes_on_classes(data, data.classes())) == ['Nothing to train on: cow.']
    document['annotations'][0]['category_id'] = 0
    save_json(tmp_path / 'all.json', document)
    assert read(tmp_path).classes() == ['pets', 'cat', 'dog', 'cow']


def test_images_that_no_json_names_are_told(tmp_path):
    write_coco(tmp_path / 'all.json', tmp_path, JPEGS[:5])
    write_image(tmp_path / JPEGS[5])
    expected = 'Without annotation, and not used: 1 images (image 05.jpg).'
    assert recognise(tmp_path).notes == [expected]


# ---------------------------------------------------------------------------------------- YOLO


@pytest.mark.parametrize('line, expected', [
    ('0 0.5 0.5 0.5 0.5', ('cat', (20, 15, 60, 45))),
    ('1.0 .5 5e-1 0.25 0.1 0.9', ('dog', (30, 27, 50, 33))),
    ('0 0.25 0.5 0.75 0.5 0.75 1', ('cat', (20, 30, 60, 60))),
    ('0 0.1 0.1 0.2 0.1 0.2 0.3 0.1 0.4', ('cat', (8, 6, 16, 24))),
    ('0 0.5 0.5 nan 0.5', Kind.NOT_A_BOX),
    ('0 0.5 0.5 0.5', Kind.NOT_A_BOX),
    ('0 320 200 50 50', Kind.NOT_A_BOX),
    ('cat 0.5 0.5 0.5 0.5', Kind.NOT_A_BOX),
    ('2 0.5 0.5 0.5 0.5', Kind.UNKNOWN_CLASS),
])  # fmt: skip
def test_a_line_of_labels(line, expected, tmp_path):
    _, image = yolo(tmp_path, f'\n{line}\r\n\n0 0.5 0.5 0.1 0.1')
    if isinstance(expected, str):
        assert [fault.kind for fault in image.faults] == [expected] and len(image.boxes) == 1
    else:
        assert (image.boxes[0].name, image.boxes[0].bbox) == expected and not image.faults


def test_coordinates_beyond_the_image_are_faults_as_in_other_formats(tmp_path):
    yolo(tmp_path, '0 0.9 0.5 0.5 0.5\n0 -0.4 0.5 0.2 0.2\n0 0.5 0.5 0 0.5\n')
    kinds = [kind for kind, _ in found_faults(tmp_path)]
    assert kinds == [Kind.ACROSS_THE_EDGE, Kind.OUTSIDE, Kind.NO_AREA]


def test_labels_that_are_none_leave_out_the_image(tmp_path):
    _, fault = yolo(tmp_path, 'a cat\n')
    assert (fault.kind, fault.path) == (Kind.NOT_AN_ANNOTATION, 'labels/a.txt')


@pytest.mark.parametrize('names', [
    '[cat, dog]', '{0: cat, 1: dog}', '{"0": cat, "1": " dog"}', '{cat: 0, dog: 1}',
    '\n- cat\n- dog',
])  # fmt: skip
def test_names_of_classes_in_a_yaml(names, tmp_path):
    (tmp_path / 'data.yaml').write_text(f'nc: 2\nnames: {names}\n')
    (tmp_path / 'other.yml').write_text('filenames: !tag x\n')
    source, _ = yolo(tmp_path, '0 0.5 0.5 0.5 0.5\n', names='')
    assert source.reader.classes(set()) == ['cat', 'dog'] and not source.notes


def test_names_of_classes_in_latin_1(tmp_path):
    for name in 'ab':
        write_image(tmp_path / f'{name}.jpg')
        (tmp_path / f'{name}.txt').write_text('0 0.5 0.5 0.5 0.5')
    (tmp_path / 'classes.txt').write_bytes('café'.encode('latin-1'))
    assert read(tmp_path).classes() == ['café']


def test_keypoints_behind_a_box(tmp_path):
    """The yaml says that there are some; their number does not."""
    (tmp_path / 'pose.yaml').write_text('kpt_shape: [2, 2]\nnames: {0: cat, 1: dog}')
    _, image = yolo(tmp_path, '0 0.5 0.5 0.5 0.5 0.1 0.1 0.9 0.9\n', names='')
    assert image.boxes[0][:2] == ('cat', (20, 15, 60, 45))


def test_classes_without_names_are_called_by_their_numbers_and_that_is_told(tmp_path):
    source, image = yolo(tmp_path, '10 0.5 0.5 0.5 0.5\n', names='')
    assert image.boxes[0].name == '10'
    assert read(tmp_path).classes() == ['1', '10']
    assert 'they are called by their numbers' in source.notes[0]


def test_lists_of_names_that_differ_hold_for_the_labels_below_them(tmp_path):
    for folder, names in (('one', 'cat\ndog\n'), ('two', 'dog\n\ncow\n')):
        write_image(tmp_path / folder / 'a.jpg')
        (tmp_path / folder / 'a.txt').write_text('0 0.5 0.5 0.5 0.5\n')
        (tmp_path / folder / 'classes.txt').write_text(names)
    source = recognise(tmp_path)
    boxes = [source.read('train', f'{folder}/a.jpg').boxes[0].name for folder in ('one', 'two')]
    assert boxes == ['cat', 'dog']
    assert source.reader.classes(set()) == ['cat', 'dog', 'cow']


def test_captions_beside_images_are_no_labels(tmp_path):
    write_voc(tmp_path, NAMES)
    for name in NAMES:
        (tmp_path / 'JPEGImages' / f'{name}.txt').write_text('a cat on a mat')
    assert recognise(tmp_path).kind == 'VOC'


# ------------------------------------------------------------------------------------ of all

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


def test_a_box_is_clipped_to_its_image_and_left_out_where_nothing_is_left(tmp_path):
    write_voc(tmp_path, NAMES[:3], dict(train=NAMES[:2], val=NAMES[2:3]))
    boxes = (70, 20, 90, 70), (-9, -9, 1, 1), (-9, 20, 2, 30)
    path = tmp_path / 'Annotations' / f'{NAMES[0]}.xml'
    path.write_text(voc_xml(*(voc_object('cat', box) for box in boxes)))
    data = read(tmp_path)
    kept = [box.bbox for box in data.images['train'][0].boxes]
    assert kept == [(69, 19, 80, 60), (0, 19, 1, 29)]
    kinds = [fault.kind for _, fault in data.all_faults(['cat'])]
    assert kinds == [Kind.ACROSS_THE_EDGE, Kind.OUTSIDE, Kind.ACROSS_THE_EDGE]
    assert data.count_boxes()['train'] == dict(cat=2, dog=1)


def test_classes_that_look_like_one_are_told(tmp_path):
    write_voc(tmp_path, NAMES, classes=('Cat', ' cat', 'traffic light', 'trafficlight'))
    data = read(tmp_path)
    notes = list(notes_on_classes(data, data.classes()))
    expected = 'Classes that differ by capital letters or blanks only'
    assert notes == [f'{expected}: Cat, cat.', f'{expected}: traffic light, trafficlight.']


def test_thousands_of_images_are_read_in_seconds(tmp_path):
    root = write_voc(tmp_path / 'data', NAMES[:1])
    for i in range(2500):
        (root / 'JPEGImages' / f'{i}.jpg').hardlink_to(root / 'JPEGImages' / JPEGS[0])
        (root / 'Annotations' / f'{i}.xml').hardlink_to(root / 'Annotations' / f'{NAMES[0]}.xml')
    start = time.monotonic()
    assert sum(map(len, read(root).images.values())) == 2501
    assert time.monotonic() - start < 20


def test_links_to_folders_are_followed_once(tmp_path):
    write_voc(tmp_path / 'elsewhere', NAMES[:4])
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/all').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere/again').symlink_to(tmp_path / 'elsewhere')
    assert len(recognise(tmp_path / 'data').reader.images) == 4
