"""Folders that can't be used: one line says what was found, what was looked for, how to go on."""

import json

import pytest

from ssd_plugin.datasets.own_data.recognise import recognise
from ssd_plugin.datasets.own_data.summary import DataSet
from ssd_plugin.errors import SSDPluginError
from tests.support.data_folders import (
    JPEGS,
    NAMES,
    save_json,
    write_coco,
    write_image,
    write_voc,
)


def refusal(root):
    """The message, one line, with which a folder is refused."""
    with pytest.raises(SSDPluginError) as caught:
        source = recognise(root)
        DataSet(source, source.parts.names)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_what_was_looked_for_and_found_is_told(tmp_path):
    assert refusal(tmp_path / 'nowhere') == f'no folder {tmp_path / "nowhere"}'
    assert 'Found nothing' in refusal(tmp_path)
    write_image(tmp_path / 'photos' / 'a.jpg')
    for name in ('b.txt', 'c.txt', 'LICENSE', '.hidden'):
        (tmp_path / name).touch()
    message = refusal(tmp_path)
    assert "Looked for images, and for them VOC's XML files, COCO's JSON or YOLO's text" in message
    assert message.endswith('Found photos/, 2 *.txt, 1 *LICENSE, 1 *.jpg')


@pytest.mark.parametrize('content, expected', [
    ('{"images": ', "can't read"),
    ('[]', 'train.json is no COCO json'),
    ('{"images": [], "annotations": {}, "categories": []}', 'no COCO json'),
    ('{"images": [1], "annotations": [], "categories": []}', 'no COCO json'),
    ('[' * 100000, "can't read"),
])  # fmt: skip
def test_a_json_of_another_kind(content, expected, tmp_path):
    (tmp_path / 'train.json').write_text(content)
    message = refusal(tmp_path)
    assert expected in message and 'train.json' in message


def test_a_json_for_a_part_that_is_cut_off_is_not_passed_over(tmp_path):
    write_coco(tmp_path / 'train.json', tmp_path, JPEGS)
    (tmp_path / 'val.json').write_text((tmp_path / 'train.json').read_text()[:-100])
    assert refusal(tmp_path).startswith(f"can't read {tmp_path / 'val.json'}: ")


def test_annotations_without_their_images(tmp_path):
    write_voc(tmp_path / 'voc', NAMES)
    for path in (tmp_path / 'voc/JPEGImages').iterdir():
        path.unlink()
    assert refusal(tmp_path / 'voc') == (
        f'{tmp_path}/voc has VOC annotations (Annotations/image 00.xml, Annotations/image 01.xml, '
        'Annotations/image 02.xml and 7 more), but none of their images, nor any other image: put '
        'them into the folder'
    )
    document = write_coco(tmp_path / 'coco/all.json', tmp_path / 'coco', JPEGS)
    for image in document['images']:
        image['file_name'] = f'another {image["file_name"]}'
    save_json(tmp_path / 'coco/all.json', document)
    assert 'none of their images: put them into' in refusal(tmp_path / 'coco')


def test_two_formats_are_not_mixed(tmp_path):
    write_voc(tmp_path / 'one', NAMES[:3])
    assert recognise(tmp_path).kind == 'VOC'
    write_coco(tmp_path / 'two/all.json', tmp_path / 'two', ['a.jpg'])
    assert refusal(tmp_path).startswith(
        f'{tmp_path} has annotations of several formats: VOC for 3 images (one/Annotations/image '
        '00.xml, one/Annotations/image 01.xml, one/Annotations/image 02.xml) and COCO for 1 images '
        '(two/all.json). Name the subfolder with those to use'
    )


def test_a_part_of_which_nothing_is_left(tmp_path):
    write_coco(tmp_path / 'test.json', tmp_path / 'images', JPEGS)
    parts = recognise(tmp_path).parts
    assert parts.evaluated == 'val' and len(parts.names['val']) == 10
    assert 'no images for train: all are for val or test; to have' in refusal(tmp_path)
    write_coco(tmp_path / 'train.json', tmp_path / 'images', [f'more {name}' for name in JPEGS])
    for path in (tmp_path / 'images').glob('more*'):
        path.write_bytes(b'')
    assert 'no images for train: 10 unreadable images (images/more image 00.jpg: ' in refusal(
        tmp_path
    )


def test_names_of_classes_that_cannot_be_read(tmp_path):
    write_image(tmp_path / 'a.jpg')
    (tmp_path / 'a.txt').write_text('0 0.5 0.5 0.1 0.1')
    (tmp_path / 'data.yaml').write_text('names: [cat\ntrain: x')
    assert refusal(tmp_path).startswith(f"can't read {tmp_path / 'data.yaml'}: ")


LABELME = json.dumps(dict(version='5', shapes=[], imagePath='a.jpg', imageData=None))
OTHERS = {  # by file: what it holds, what it is called, a word of the advice
    'a.json': (LABELME, 'LabelMe', 'labelme2coco'),
    'train/a.json': (LABELME, 'LabelMe', 'labelme2coco'),
    'via.json': ('{"a.jpg12": {"filename": "a.jpg", "regions": []}}', 'VGG Image', 'COCO'),
    'via_project.json': ('{"_via_settings": {}, "_via_img_metadata": {}}', 'VGG Image', 'COCO'),
    'train/_annotations.createml.json': ('[{"image": "a.jpg", "annotations": []}]', 'CreateML',
                                         'Pascal VOC'),
    'ann/a.jpg.json': ('{"size": {}, "objects": []}', 'Supervisely', 'COCO'),
    'project.json': ('[{"id": 1, "annotations": [], "data": {}}]', 'Label Studio', 'YOLO'),
    'export.ndjson': ('{"data_row": {"id": 1}}', 'Labelbox', 'COCO'),
    'captions.json': ('{"images": [], "annotations": []}', 'captions', 'instances'),
    'labels.csv': ('filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,1,1,cat,1,1,2,2\n',
                   'CSV', 'Pascal VOC'),
    'retina.csv': ('images/a.jpg,1,1,20,20,cat\n', 'CSV', 'Pascal VOC'),
    'boxes.csv': ('ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n', 'Open Images',
                  'COCO'),
    'annotations.xml': ('<?xml version="1.0"?><annotations><image/></annotations>', 'CVAT',
                        'Pascal VOC'),
    'train/pets.tfrecord': ('', 'TFRecord', 'Pascal VOC'),
    'label_2/a.txt': ('Car 0.00 0 -1.82 10.0 1.0 30.0 22.0 1.5 1.6 3.2 -1.8 1.7 8.4 -1.6\n',
                      'KITTI', 'COCO'),
    'annotations/a.txt': ('684,8,273,116,0,0,0,0\n', 'VisDrone', 'YOLO'),
    'train.txt': ('images/a.jpg 1,2,30,40,0 5,6,20,20,1\n', 'lists of images with boxes', 'VOC'),
    'images.zip': ('', 'an archive', 'unpack'),
}  # fmt: skip


@pytest.mark.parametrize('file', OTHERS)
def test_other_formats_are_called_by_name_with_a_way_to_go_on(file, tmp_path):
    content, name, advice = OTHERS[file]
    write_image(tmp_path / 'images/a.jpg')
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    message = refusal(tmp_path)
    assert f' has {name}' in message or name in message.split('which is not read')[0]
    assert file in message and advice in message.split('which is not read')[1]


def test_a_folder_of_images_whose_annotations_are_beside_it(tmp_path):
    write_voc(tmp_path, NAMES)
    message = refusal(tmp_path / 'JPEGImages')
    assert message.endswith(f'Beside it is Annotations: did you mean {tmp_path}?')
