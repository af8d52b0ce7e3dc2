"""Which images are trained on and which are evaluated on."""

import pytest

from ssd_plugin.datasets.own_data.parts import choose_parts
from ssd_plugin.datasets.own_data.recognise import recognise
from tests.support.data_folders import (
    JPEGS,
    NAMES,
    coco_document,
    save_json,
    write_coco,
    write_image,
    write_voc,
)


def parts(root):
    return recognise(root).parts.names


def jpegs(names, folder='JPEGImages'):
    return [f'{folder}/{name}.jpg' for name in names]


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


def test_a_devkit_of_several_years_is_trained_and_tested_as_published(tmp_path):
    years = tmp_path / 'VOCdevkit'
    lists = dict(train=NAMES[:4], val=NAMES[4:6], trainval=NAMES[:6], test=NAMES[6:])
    write_voc(years / 'VOC2007', NAMES, lists)
    other = years / 'VOC2007/ImageSets/Segmentation/train.txt'  # of another task
    other.parent.mkdir()
    other.write_text(f'{NAMES[9]}\n')
    lists = dict(train=NAMES[:1], val=NAMES[1:2], trainval=NAMES[:2])
    write_voc(years / 'VOC2012', NAMES[:2], lists, suffix='.png')
    for name in NAMES[:2]:
        write_image(years / f'VOC2012/SegmentationClass/{name}.png')  # not images to train on
    expected = jpegs(NAMES[:6], 'VOC2007/JPEGImages')
    expected += [f'VOC2012/JPEGImages/{name}.png' for name in NAMES[:2]]
    found = parts(years)
    assert found['train'] == expected
    assert found['val'] == jpegs(NAMES[6:], 'VOC2007/JPEGImages')
    assert parts(tmp_path)['train'] == [f'VOCdevkit/{path}' for path in expected]
    source = recognise(tmp_path)
    assert source.benchmark and source.description == 'Pascal VOC (VOC2007, VOC2012)'
    one_year = recognise(years / 'VOC2012')
    assert one_year.benchmark and one_year.description == 'Pascal VOC'
    assert one_year.parts.names == {
        part: [f'JPEGImages/{name}.png'] for part, name in zip(('train', 'val'), NAMES)
    }


def test_lists_may_name_files_and_lie_in_imagesets_itself(tmp_path):
    lists = write_voc(tmp_path, NAMES) / 'ImageSets'
    lists.mkdir()
    (lists / 'training.txt').write_text('\ufeffimage 00.jpg\r\n\r\nJPEGImages\\image 01 \r\n')
    (lists / 'valid.txt').write_text('image 02.xml\n')
    (lists / 'cat_train.txt').write_text('image 03  1\n')
    (lists / 'mine.txt').write_text('image 04\n')
    source = recognise(tmp_path)
    assert source.parts.names == dict(train=jpegs(NAMES[:2]), val=jpegs(NAMES[2:3]))
    assert source.notes == [
        'In no part, and not used: 7 annotated images (JPEGImages/image 03.jpg, '
        'JPEGImages/image 04.jpg, JPEGImages/image 05.jpg and 4 more).',
        'Lists that name no part, and are not used: ImageSets/mine.txt.',
    ]


def test_lists_in_a_folder_for_a_part_are_for_it_unless_they_name_several(tmp_path):
    lists = dict(train=NAMES[:4])
    write_voc(tmp_path / 'one/train', NAMES[:4], lists)
    write_voc(tmp_path / 'one/valid', NAMES[4:6], dict(train=NAMES[4:6]))
    assert {part: len(names) for part, names in parts(tmp_path / 'one').items()} == dict(
        train=4, val=2
    )
    write_voc(tmp_path / 'two/train', NAMES[:4], dict(train=NAMES[:3], val=NAMES[3:4]))
    write_voc(tmp_path / 'two/test', NAMES[4:6], dict(test=NAMES[4:6]))
    assert parts(tmp_path / 'two') == dict(
        train=jpegs(NAMES[:3], 'train/JPEGImages'),
        val=jpegs(NAMES[3:4], 'train/JPEGImages'),
        test=jpegs(NAMES[4:6], 'test/JPEGImages'),
    )


def test_a_class_whose_folder_is_called_like_a_part_and_more_is_none(tmp_path):
    write_voc(tmp_path, NAMES[:5], folders=('a/test drive', 'a/test drive'))
    assert {part: len(names) for part, names in parts(tmp_path).items()} == dict(train=4, val=1)


def test_the_same_names_in_each_part_are_other_images(tmp_path):
    """Also where one part lacks an image, which another has."""
    for part, number in (('train', 4), ('valid', 3)):
        write_coco(tmp_path / part / 'labels.json', tmp_path / part / 'images', JPEGS[:number])
    (tmp_path / 'valid/images' / JPEGS[0]).unlink()
    source = recognise(tmp_path)
    assert source.parts.names == dict(
        train=jpegs(NAMES[:4], 'train/images'), val=jpegs(NAMES[1:3], 'valid/images')
    )
    [fault] = source.missing['val']
    assert (fault.kind, fault.path) == ('missing images', JPEGS[0])


def test_of_an_image_in_two_parts_each_has_its_own_annotation(tmp_path):
    write_coco(tmp_path / 'train.json', tmp_path, JPEGS[:2])
    document = coco_document(JPEGS[:1])
    document['annotations'][0]['bbox'] = [1, 1, 5, 5]
    save_json(tmp_path / 'val.json', document)
    source = recognise(tmp_path)
    assert source.parts.names == dict(train=JPEGS[:2], val=JPEGS[:1])
    boxes = [source.read(part, JPEGS[0]).boxes[0].bbox for part in ('train', 'val')]
    assert boxes == [(10, 10, 40, 30), (1, 1, 6, 6)]


def test_annotations_of_one_image_in_several_files_are_one_image(tmp_path):
    write_coco(tmp_path / 'a.json', tmp_path, JPEGS[:6])
    document = coco_document([JPEGS[0], *JPEGS[6:9], JPEGS[6]])  # one twice
    for image in document['images']:
        image['file_name'] = f'./{image["file_name"]}'
    for annotation in document['annotations']:
        annotation['bbox'] = [1, 1, 5, 5]
    save_json(tmp_path / 'b.json', document)
    for name in JPEGS[6:9]:
        write_image(tmp_path / name)
    source = recognise(tmp_path)
    assert sorted(source.parts.names['train'] + source.parts.names['val']) == JPEGS[:9]
    assert [box[:2] for box in source.read('train', JPEGS[0]).boxes] == [
        ('cat', (10, 10, 40, 30)), ('cat', (1, 1, 6, 6))
    ]  # fmt: skip
    assert [box.name for box in source.read('train', JPEGS[6]).boxes] == ['dog', 'cat']


def test_a_copy_of_an_annotation_adds_nothing(tmp_path):
    write_voc(tmp_path, NAMES[:3])
    write_voc(tmp_path, NAMES[:3], folders=('backup', 'JPEGImages'))
    source = recognise(tmp_path)
    assert len(source.read('train', jpegs(NAMES)[0]).boxes) == 1


def test_a_part_of_a_yaml_that_is_not_there_is_said_and_no_other_taken_for_it(tmp_path):
    write_image(tmp_path / 'train/images/a.jpg')
    write_image(tmp_path / 'train/images/b.jpg')
    (tmp_path / 'train/labels').mkdir()
    (tmp_path / 'train/labels/a.txt').write_text('0 0.5 0.5 0.2 0.2\n')
    (tmp_path / 'data.yaml').write_text('train: ../train/images\nval: ../val/images\nnames: [cat]')
    source = recognise(tmp_path)
    assert len(source.parts.names['val']) == 1 and ' drawn ' in source.parts.origin
    assert source.notes == ['data.yaml names ../val/images for val, which is not there.']
    write_image(tmp_path / 'val/images/c.jpg')
    source = recognise(tmp_path)
    assert ' drawn ' in source.parts.origin
    assert source.notes == ['Without annotation, and not used: 1 images (val/images/c.jpg).']


def test_a_list_holds_though_most_of_its_images_are_missing_and_one_of_none_is_told(tmp_path):
    nowhere = [f'nowhere {i}' for i in range(8)]
    write_voc(tmp_path, NAMES[:4], dict(train=[*NAMES[:2], *nowhere], val=NAMES[2:4], test=nowhere))
    source = recognise(tmp_path)
    assert source.parts.names == dict(train=[*jpegs(NAMES[:2]), *nowhere], val=jpegs(NAMES[2:4]))
    expected = 'Lists that name no image here, and are not used: ImageSets/Main/test.txt.'
    assert source.notes == [expected]


def test_a_list_with_numbers_behind_the_names(tmp_path):
    """As the Oxford pets have them, beside masks with the names of the images."""
    write_voc(tmp_path, NAMES[:4], folders=('annotations/xmls', 'images'))
    for name in NAMES[:4]:
        write_image(tmp_path / f'annotations/trimaps/{name}.png')
    for part, names in (('trainval', NAMES[:3]), ('test', NAMES[3:4])):
        (tmp_path / f'annotations/{part}.txt').write_text('\n'.join(f'{n} 1 12 3' for n in names))
    source = recognise(tmp_path)
    assert source.parts.names == dict(
        train=jpegs(NAMES[:3], 'images'), val=jpegs(NAMES[3:4], 'images')
    )
