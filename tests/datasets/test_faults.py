"""Faults of data, each in a folder of its own: what docs/data_faults.md says is what happens."""

import re
from io import BytesIO
from pathlib import Path

import _own_data as command
import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmdet.structures.bbox import get_box_tensor
from mmengine.dataset import default_collate
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools.coco import COCO as COCOApi
from torch.utils.data import DataLoader

from ssd_plugin.datasets.check import find_faults
from ssd_plugin.datasets.faults import known_faults
from ssd_plugin.datasets.jpeg import is_cut_off
from ssd_plugin.datasets.own_data.recognise import recognise
from ssd_plugin.datasets.own_data.summary import DataSet
from ssd_plugin.datasets.voc import read_annotation
from ssd_plugin.engine.hooks.data_fault_hook import find_faulty_boxes
from ssd_plugin.errors import DataRefusedError, SSDPluginError
from tests.support.data_folders import SIZE, coco_document, save_json
from tests.support.faulty_data import BOMB, COCO, FAULTS, SOUND, VOC, encode, noise, write_faulty

ROOT = Path(__file__).resolve().parents[2]


CLASSES = ('cat', 'dog')
LOAD, READ = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)
RESIZE, PACK = dict(type='Resize', scale=(32, 32), keep_ratio=False), dict(type='PackDetInputs')
TRAIN_PIPELINE = [LOAD, READ, RESIZE, PACK]
TEST_PIPELINE = [LOAD, RESIZE, READ, PACK]
CANNOT_READ = {  # by this OpenCV
    'animated GIF': not re.search(r'GIF:\s+YES', cv2.getBuildInformation()),
    'animated WebP': tuple(map(int, cv2.__version__.split('.')[:2])) < (4, 11),
}


def build(folder, test_mode=False, pipeline=None, **options):
    pipeline = pipeline or (TEST_PIPELINE if test_mode else TRAIN_PIPELINE)
    common = dict(data_root=str(folder.root), metainfo=dict(classes=CLASSES), pipeline=pipeline)
    # Serialising collects garbage: it takes longer than all the rest.
    common.update(test_mode=test_mode, serialize_data=False, **options)
    part = 'val' if test_mode else 'train'
    if isinstance(folder, VOC):
        files = dict(ann_file=f'ImageSets/Main/{part}.txt', data_prefix=dict(sub_data_root=''))
        return DATASETS.build(dict(common, type='CheckedVOCDataset', **files))
    files = dict(ann_file=f'{part}.json', data_prefix=dict(img='images'))
    return DATASETS.build(dict(common, type='CheckedCocoDataset', **files))


def samples_of(dataset):
    return [dataset[index]['data_samples'] for index in range(len(dataset))]


def outcome(folder):
    """What training makes of the fault, and where it is listed: as the table has it."""
    try:
        dataset = build(folder)
    except DataRefusedError:
        return 'refused', '-'
    samples = samples_of(dataset)
    boxes = find_faulty_boxes(samples)
    found = [*known_faults(dataset), *(f for s in samples for f in s.get('data_faults', ()))]
    for name in SOUND:
        assert any(sample.img_path.endswith(f'{name}.jpg') for sample in samples)
    return fate(folder, dataset, samples, boxes), 'data_faults.txt' if found or boxes else '-'


def fate(folder, dataset, samples, boxes):
    sample = of_the_fault(folder, samples)
    if not sample:
        return 'image left out'
    assert sample.img_shape == (32, 32)
    if len(sample.ignored_instances):
        return 'ignored'
    faulty = sum(boxes.get(sample.img_path, {}).values())
    if len(sample.gt_instances) - faulty < len(folder.boxes):
        return 'object left out'
    bboxes = get_box_tensor(sample.gt_instances.bboxes)
    assert ((bboxes >= 0) & (bboxes <= 32)).all()
    infos = map(dataset.get_data_info, range(len(dataset)))
    info = next(info for info in infos if info['img_path'] == sample.img_path)
    height, width = sample.ori_shape
    annotated = np.array([i['bbox'] for i in info['instances']]).reshape(-1, 4)
    within = (annotated >= 0) & (annotated <= [width, height, width, height])
    return 'used' if within.all() else 'clipped'


def of_the_fault(folder, samples):
    """The sample of the image that is for the fault, if there is one."""
    return next((s for s in samples if s.img_path.endswith(f'{folder.name}.jpg')), None)


def in_evaluation(folder):
    """What evaluation makes of it; the metric, which reads a json by itself, gets to its end."""
    try:
        dataset = build(folder, test_mode=True)
    except DataRefusedError:
        return 'refused'
    samples = samples_of(dataset)
    if isinstance(folder, COCO):  # VOC's metric starts processes: it has a test of its own
        file = str(folder.root / 'val.json')
        metric = dict(type='CocoMetric', metric='bbox', ann_file=file)
        assert 0 < evaluate(metric, samples)['coco/bbox_mAP_50'] <= 1
    sample = of_the_fault(folder, samples)
    if not sample:
        return 'image left out'
    if sample.get('unreadable'):
        return 'counts as empty'
    return 'object counts' if is_counted(folder, sample) else 'as in training'


def evaluate(metric, samples):
    """The figures for samples with one detection each, which is right for the sound images."""
    metric = METRICS.build(metric)
    metric.dataset_meta = dict(classes=CLASSES, dataset_type=None)
    box, score, label = torch.tensor([[10.0, 10.0, 40.0, 30.0]]), torch.ones(1), torch.tensor([0])
    for sample in samples:
        sample.pred_instances = InstanceData(bboxes=box, scores=score, labels=label)
    metric.process({}, [sample.to_dict() for sample in samples])
    return metric.evaluate(len(samples))


def is_counted(folder, sample):
    """Whether the metric counts an object that training doesn't."""
    if isinstance(folder, VOC):
        return bool(find_faulty_boxes([sample]))
    document = COCOApi(str(folder.root / 'val.json'))
    ids = document.getAnnIds([sample.img_id], document.getCatIds(CLASSES), iscrowd=False)
    return len(ids) > len(sample.gt_instances)


def said_of_the_folder(folder):
    try:
        data = DataSet(recognise(folder.root), ['train'])
        command.choose_classes(data, None, None)
    except SSDPluginError:
        return 'refused'
    kinds = {fault.kind for _, fault in data.all_faults(data.classes())}
    return ', '.join(sorted(kinds)) or '-'


def strict(folder):
    try:
        found = list(find_faults(build(folder)))
    except DataRefusedError:
        return 'refused'
    return 'refused' if found else 'passes'


def rows():
    """The tables of the docs: by kind and fault, what each column says."""
    text = (ROOT / 'docs' / 'data_faults.md').read_text(encoding='utf-8')
    found = {}
    for table in re.split(r'^## ', text, flags=re.M)[1:]:
        for line in re.findall(r'^\|(?! fault \|)(?!-)(.*)\|$', table, flags=re.M):
            faults, *cells = (cell.replace('`', '').strip() for cell in line.split('|'))
            for kind, which in ((VOC, 0), (COCO, -1)):
                if table.startswith(('Objects', 'Images', KINDS[kind])):
                    for fault in faults.split('; '):
                        found[kind, fault] = [cell.split(' / ')[which] for cell in cells]
    return found


KINDS = {VOC: "VOC's", COCO: "COCO's"}
ROWS = rows()


def test_the_tables_have_a_row_for_each_fault_that_can_be_made():
    assert set(ROWS) == set(FAULTS)


@pytest.mark.parametrize('kind, fault', ROWS, ids=lambda part: getattr(part, '__name__', part))
def test_what_the_table_says_happens(kind, fault, tmp_path):
    if CANNOT_READ.get(fault):
        pytest.skip('this OpenCV can not decode it: docs/data_faults.md says what happens then')
    folder = write_faulty(kind, fault, tmp_path)
    measured = [*outcome(folder), said_of_the_folder(folder), strict(folder)]
    measured.insert(1, in_evaluation(folder))
    assert measured == ROWS[kind, fault]


def test_the_metric_of_voc_takes_what_is_faulty(tmp_path):
    samples = []
    for number, (kind, fault) in enumerate(FAULTS):
        if kind is VOC and fault != '500 objects':
            folder = write_faulty(kind, fault, tmp_path / str(number))
            samples += samples_of(build(folder, test_mode=True))
    assert 0.8 < evaluate(dict(type='VOCDetMetric'), samples)['pascal_voc/AP/cat'] < 1


@pytest.mark.parametrize('kind', KINDS)
def test_the_next_image_takes_the_place_of_one_that_is_passed_over(kind, tmp_path):
    folder = write_faulty(kind, 'image missing', tmp_path)
    dataset = build(folder)
    for _ in range(3):
        np.random.seed(None)
        sample = dataset[1]['data_samples']
        assert Path(sample.img_path).name == f'{SOUND[1]}.jpg'
        [fault] = sample.data_faults
        assert (fault.kind, Path(fault.path).name) == ('missing images', 'faulty.jpg')
    assert 'data_faults' not in dataset[2]['data_samples'], 'it is told once'
    (folder.root / dataset.get_data_info(2)['img_path']).unlink()
    sample = dataset[1]['data_samples']
    assert Path(sample.img_path).name == f'{SOUND[0]}.jpg', 'behind the last comes the first'
    assert [Path(f.path).name for f in sample.data_faults] == ['faulty.jpg', f'{SOUND[1]}.jpg']


@pytest.mark.parametrize('test_mode', [False, True])
def test_an_error_of_the_pipeline_on_a_sound_image_is_no_fault_of_data(test_mode, tmp_path):
    folder = write_faulty(VOC, 'no objects', tmp_path)
    broken = [LOAD, dict(type='Resize', scale=(0, 0), keep_ratio=False), READ, PACK]
    dataset = build(folder, test_mode=test_mode, pipeline=broken)
    with pytest.raises(cv2.error):
        dataset[1]


@pytest.mark.parametrize('fault', ['animated GIF', 'animated PNG', 'animated WebP'])
def test_the_first_frame_of_an_animation_is_taken(fault, tmp_path):
    if CANNOT_READ.get(fault):
        pytest.skip('this OpenCV can not decode it')
    dataset = build(write_faulty(VOC, fault, tmp_path))
    assert (dataset[1]['inputs'].float().mean() - 10).abs() < 1


def test_boxes_refer_to_the_image_as_displayed(tmp_path):
    folder = write_faulty(VOC, 'image turned by EXIF, annotated as displayed', tmp_path)
    assert Image.open(folder.root / 'JPEGImages/faulty.jpg').size == SIZE[::-1]
    assert build(folder)[1]['data_samples'].ori_shape == SIZE[::-1]


def test_entities_never_grow(tmp_path):
    """A document type ends reading, in any encoding, before there is anything to expand."""
    path = tmp_path / 'bomb.xml'
    for encoding in ('utf-8', 'utf-16'):
        path.write_text(BOMB.replace('"1.0"', f'"1.0" encoding="{encoding}"'), encoding=encoding)
        fault = read_annotation(str(path))
        assert fault.kind == 'unreadable annotations' and 'document type' in fault.detail


def test_a_jpeg_with_something_behind_its_end_is_whole_and_one_with_a_preview_is_not():
    whole = encode(noise())
    preview = encode(noise(), exif=b'Exif\0\0' + whole)
    assert not is_cut_off(whole + b'a maker adds this')
    assert not is_cut_off(whole + b'its video \xff\xd9 has any bytes \xff\xda 12')
    assert not is_cut_off(whole[:2] + b'\xff\xff' + whole[2:] + b'.')
    assert not is_cut_off(preview)
    assert is_cut_off(preview[:-100])
    assert is_cut_off(whole[:-2])


@pytest.mark.parametrize('options', [{}, dict(progressive=True), dict(restart_marker_blocks=3)])
@pytest.mark.parametrize('behind', [b'', b'.', np.random.default_rng(0).bytes(300_000)])
def test_only_what_is_cut_off_is_called_so(options, behind):
    """Wherever it is cut, and whatever is behind a whole one."""
    file = BytesIO()
    noise().save(file, 'JPEG', **options)
    whole = file.getvalue()
    assert not is_cut_off(whole + behind)
    assert all(is_cut_off(whole[:end]) for end in range(4, len(whole) - 1, 97))


def test_what_a_worker_finds_travels_with_a_sample(tmp_path):
    dataset = build(write_faulty(VOC, 'image missing', tmp_path))
    [batch] = DataLoader(dataset, batch_size=3, num_workers=1, collate_fn=default_collate)
    assert [len(sample.get('data_faults', ())) for sample in batch['data_samples']] == [0, 1, 0]
    assert batch['data_samples'][1].data_faults[0].kind == 'missing images'


@pytest.mark.parametrize('kind', KINDS)
def test_a_data_set_of_which_nothing_is_left_is_refused(kind, tmp_path):
    folder = write_faulty(kind, 'no objects', tmp_path)
    for path in folder.root.glob('Annotations/*'):
        path.write_text('no xml')
    save_json(folder.root / 'train.json', coco_document([]))
    with pytest.raises(DataRefusedError, match='no image is left') as caught:
        build(folder)
    assert '\n' not in str(caught.value)


def test_a_json_without_a_class_of_the_config_is_refused(tmp_path):
    folder = write_faulty(COCO, 'no objects', tmp_path)
    save_json(folder.root / 'train.json', coco_document(['a.jpg'], classes=('cat',)))
    with pytest.raises(DataRefusedError, match='has 1 of the 2 classes of the config'):
        build(folder)


@pytest.mark.parametrize('kind', KINDS)
def test_images_without_objects_that_are_left_out_are_counted(kind, tmp_path):
    folder = write_faulty(kind, 'no objects', tmp_path)
    kept, dropped = build(folder), build(folder, filter_cfg=dict(filter_empty_gt=True))
    assert (len(kept), kept.num_empty_left_out) == (3, 0)
    assert (len(dropped), dropped.num_empty_left_out) == (2, 1)
    assert not dropped.faults
