"""What is written of detections, read back by pycocotools, MMDetection and OpenCV."""

import json
import os
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from mmdet.datasets import XMLDataset
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from ssd_plugin.inference.inputs import Image, read_inputs
from ssd_plugin.inference.writers import CocoWriter, DrawingWriter, DrawnVideo, VocWriter
from tests.support.data_folders import write_image
from tests.support.videos import grey_frames, write_video

CLASSES = ('cat', 'dog & co', 'a$b')


def found(*detections):
    """Detections (x1, y1, x2, y2, score, label), the surest first."""
    table = np.array(detections, np.float32).reshape(-1, 6)
    labels = table[:, 5].astype(np.int64)
    return InstanceData(bboxes=table[:, :4], scores=table[:, 4], labels=labels)


def image(name='a.jpg', size=(80, 60), frame=None, level=128):
    return Image(f'in/{name}', name, np.full((size[1], size[0], 3), level, np.uint8), frame)


TWO = found((10.25, 5, 30, 25.5, 0.9, 1), (0, 0, 79.9, 60, 0.25, 0))


def test_pycocotools_loads_the_results_beside_their_images(tmp_path):
    with pytest.raises(ZeroDivisionError), closing(CocoWriter(tmp_path, CLASSES)) as writer:
        writer.write(image('a.jpg'), TWO)
        writer.write(image('b.jpg', (40, 30)), found())
        writer.write(image('c.mp4', frame=0), found((1, 2, 4, 8, 0.5, 2)))
        writer.write(image('c.mp4', frame=1), found())
        raise ZeroDivisionError  # after which the files are complete
    coco = COCO(str(tmp_path / 'images.json'))
    results = coco.loadRes(str(tmp_path / 'detections.json'))
    files = {i: entry['file_name'] for i, entry in coco.imgs.items()}
    assert files == {1: 'in/a.jpg', 2: 'in/b.jpg', 3: 'in/c.mp4', 4: 'in/c.mp4'}
    assert [coco.imgs[i].get('frame_id') for i in files] == [None, None, 0, 1]
    assert (coco.imgs[2]['width'], coco.imgs[2]['height']) == (40, 30)
    read = [
        (files[a['image_id']], coco.cats[a['category_id']]['name'], a['bbox'], a['score'])
        for a in results.dataset['annotations']
    ]
    assert read == [
        ('in/a.jpg', 'dog & co', [10.25, 5, 19.75, 20.5], 0.9),
        ('in/a.jpg', 'cat', [0, 0, pytest.approx(79.9, abs=1e-3), 60], 0.25),
        ('in/c.mp4', 'a$b', [1, 2, 3, 6], 0.5),
    ]


def test_without_detections_the_list_is_empty(tmp_path):
    CocoWriter(tmp_path, CLASSES).close()
    assert json.loads((tmp_path / 'detections.json').read_text()) == []


def read_voc(folder):
    """Objects (class, box) by image, read by MMDetection."""
    names = sorted(path.stem for path in (folder / 'Annotations').glob('*.xml'))
    (folder / 'all.txt').write_text('\n'.join(names))
    where = dict(data_root=str(folder), ann_file='all.txt', data_prefix=dict(sub_data_root=''))
    dataset = XMLDataset(metainfo=dict(classes=CLASSES), **where)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return {
        info['img_id']: [(CLASSES[i['bbox_label']], i['bbox']) for i in info['instances']]
        for info in infos
    }


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ['x/1.jpg', 'x/1.png', 'x/y/1.jpg', 'x_y/1.jpg', 'x/2.ppm']
    for number, name in enumerate(names):
        write_image(Path(name), number=number)
    return names


def test_mmdetection_reads_the_boxes_that_were_found(images):
    (source,) = read_inputs(['x/1.jpg'])
    boxes = {
        (10.2, 5.4, 30.6, 25): [10, 5, 31, 25],
        (-3, -2, 90, 70): [0, 0, 79, 59],  # within the image of 80 x 60
        (79.8, 59.9, 80, 60): [78, 58, 79, 59],  # with an area
        (5, 5, 5.2, 9): [5, 5, 6, 9],
    }
    VocWriter(Path('voc'), CLASSES).write(source, found(*((*box, 0.9, 1) for box in boxes)))
    assert read_voc(Path('voc')) == {'1': [('dog & co', box) for box in boxes.values()]}


def test_each_image_has_a_name_of_its_own_and_its_copy(images):
    writer = VocWriter(Path('voc'), CLASSES)
    for label, source in enumerate(read_inputs(images)):
        writer.write(source, found((1, 1, 9, 9, 0.9, label % 3)) if label else found())
    copies = ('x_1.jpg', 'x_1_2.png', 'x_y_1.jpg', 'x_y_1_2.jpg', 'x_2.png')
    read = {name: [name for name, _ in boxes] for name, boxes in read_voc(Path('voc')).items()}
    objects = [[], ['dog & co'], ['a$b'], ['cat'], ['dog & co']]
    assert read == {Path(copy).stem: names for copy, names in zip(copies, objects)}
    for name, copy in zip(images, copies):
        assert np.array_equal(cv2.imread(name), cv2.imread(f'voc/JPEGImages/{copy}')), name
        xml = Path('voc/Annotations', copy).with_suffix('.xml').read_text()
        assert f'<filename>{copy}</filename>' in xml and f'<path>{name}</path>' in xml


def test_frames_become_images(images):
    write_video(Path('clip.mp4'), grey_frames(3))
    writer = VocWriter(Path('voc'), CLASSES)
    for frame in read_inputs(['clip.mp4']):
        writer.write(frame, found((1, 1, 9, 9, 0.9, 0)))
    assert list(read_voc(Path('voc'))) == ['clip_000000', 'clip_000001', 'clip_000002']
    assert cv2.imread('voc/JPEGImages/clip_000002.jpg').mean() == pytest.approx(100, abs=4)


def test_a_name_that_is_not_utf8_is_still_xml(tmp_path):
    name = os.fsdecode('Gl\xfcck'.encode('latin-1')) + '.ppm'
    VocWriter(tmp_path, CLASSES).write(image(name), TWO)
    (path,) = (tmp_path / 'Annotations').iterdir()
    xml = ElementTree.parse(path)
    assert xml.findtext('filename') == 'Gl?ck.png' and len(xml.findall('object')) == 2


def test_drawn_images_keep_names_folders_and_sizes(images):
    with closing(DrawingWriter(Path('vis'), CLASSES)) as writer:
        for source in read_inputs(images):
            writer.write(source, TWO)
    drawn = {path.relative_to('vis').as_posix() for path in Path('vis').rglob('*.*')}
    assert drawn == {'x/1.jpg', 'x/1.png', 'x/y/1.jpg', 'x_y/1.jpg', 'x/2.ppm.png'}
    for name in drawn:
        assert cv2.imread(f'vis/{name}').shape == (60, 80, 3)
    assert (cv2.imread('vis/x/1.png') != cv2.imread('x/1.png')).any()


def test_an_annotated_video_has_size_rate_and_frames_of_its_source(images):
    write_video(Path('one.mp4'), grey_frames(4))
    write_video(Path('two.avi'), grey_frames(3, (64, 48)), rate=8)
    with closing(DrawingWriter(Path('vis'), CLASSES)) as writer:
        for source in read_inputs(['one.mp4', 'x/1.jpg', 'two.avi']):
            writer.write(source, found((20, 20, 50, 40, 0.9, 0)))
    videos = ('one.mp4', (64, 96), 12.5, 4), ('two.avi.mp4', (48, 64), 8, 3)
    for name, size, rate, number in videos:
        video = cv2.VideoCapture(f'vis/{name}')
        assert video.get(cv2.CAP_PROP_FPS) == rate
        frames = [video.read()[1] for _ in range(number)]
        assert not video.read()[0]
        for i, frame in enumerate(frames):
            assert frame.shape == (*size, 3)
            assert np.median(frame) == pytest.approx(20 * i + 60, abs=6)
            assert frame[30, 20, 0] > frame[30, 20, 2] + 60  # a blue box
    assert sorted(path.name for path in Path('vis').iterdir()) == ['one.mp4', 'two.avi.mp4', 'x']


def test_a_streams_video_keeps_the_time(tmp_path):
    path, pixels = tmp_path / 'new/stream.mp4', np.full((60, 80, 3), 90, np.uint8)
    times = (7.0, 7.1, 7.5, 20.0, 20.1)  # 10 frames a second, with a break
    with closing(DrawnVideo(path, CLASSES)) as writer:
        for number, seconds in enumerate(times):
            size = 2 if number == 4 else 1  # opened again, it may have another size
            frame = np.repeat(np.repeat(pixels, size, 0), size, 1)
            writer.write(Image('a', 'a', frame, number, 10.0, seconds), found())
    video, frames = cv2.VideoCapture(str(path)), 0
    while video.read()[0]:
        frames += 1
    assert frames == 1 + 1 + 4 + 10 + 1  # of the break no more than a second
