"""A checkpoint whose classes are in another order than the data set's evaluates as it was meant."""

import json
from functools import cache

import pytest
import torch
from mmengine.config import Config

from ssd_plugin.checkpoints.load import load_detector
from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes
from ssd_plugin.engine.launch import build_runner
from ssd_plugin.errors import CheckpointError
from tests.support.commands import ROOT
from tests.support.exported import lively_detector, read_config

ORDER = [3, 0, 4, 2, 1]  # of the classes of the data set
SHUFFLED = tuple(CLASSES[i] for i in ORDER)
SIGMOID = dict(type='FocalLoss', use_sigmoid=True)
HEADS = dict(softmax=None, sigmoid=SIGMOID)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Six drawn images to test on, in VOC's and in COCO's format."""
    root = write_voc_shapes(tmp_path_factory.mktemp('shapes'), num_train=1, num_test=6)
    cfg = read_config('demo_shapes')
    cfg.merge_from_dict({'test_dataloader.dataset.data_root': f'{root}/'})
    dataset = build_runner(quick(cfg, root)).build_dataloader(cfg.test_dataloader).dataset
    for name, classes in (('same', CLASSES), ('shuffled', SHUFFLED)):
        document = dict(images=[], annotations=[])
        document['categories'] = [dict(id=i + 7, name=c) for i, c in enumerate(classes)]
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            file_name = info['img_path'].split('/')[-1]
            size = dict(width=info['width'], height=info['height'])
            document['images'].append(dict(id=i, file_name=file_name, **size))
            for box in info['instances']:
                x1, y1, x2, y2 = box['bbox']
                document['annotations'].append(
                    dict(
                        id=len(document['annotations']) + 1, image_id=i, iscrowd=0,
                        category_id=classes.index(CLASSES[box['bbox_label']]) + 7,
                        bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1),
                    )
                )  # fmt: skip
        (root / f'{name}.json').write_text(json.dumps(document))
    return root


def quick(cfg, work_dir):
    cfg.work_dir = str(work_dir / 'work')
    cfg.visualizer.name = work_dir.name  # runners share a visualizer of one name, and its folder
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.log_level = 'WARNING'
    return cfg


def configured(data, kind, head, classes=CLASSES):
    """The demo's config, on a VOC-type or a COCO-type data set with the classes in an order."""
    cfg = quick(read_config('demo_shapes', **{'bbox_head.loss_cls': HEADS[head]}), data)
    metainfo = dict(classes=classes)
    pipeline = cfg.test_dataloader.dataset.pipeline
    evaluator = dict(type='VOCDetMetric', eval_mode='area')
    if kind == 'VOC':
        dataset = cfg.test_dataloader.dataset
        dataset.update(data_root=f'{data}/', metainfo=metainfo)
    else:
        kind, name = kind.split()
        dataset = dict(
            type=kind, data_root=f'{data}/', ann_file=f'{name}.json', metainfo=metainfo,
            data_prefix=dict(img='JPEGImages/'), test_mode=True, pipeline=pipeline,
        )  # fmt: skip
        evaluator = dict(type='CocoMetric', ann_file=f'{data}/{name}.json', classwise=True)
    cfg.test_dataloader.dataset, cfg.test_evaluator = dataset, evaluator
    return cfg


@pytest.fixture(scope='module')
def weights(data):
    """A detector of each kind that finds much, and what it knows."""
    paths = {}
    for head in HEADS:
        paths[head] = str(data / f'{head}.pth')
        detector = lively_detector(configured(data, 'VOC', head), (160, 160))
        meta = dict(dataset_meta=dict(classes=CLASSES))
        torch.save(dict(state_dict=detector.state_dict(), meta=meta), paths[head])
    return paths


def evaluate(cfg, checkpoint):
    """The metrics, of each class by its name."""
    cfg.load_from = checkpoint
    return build_runner(cfg).test()


@pytest.fixture(scope='module')
def as_it_is(data, weights):
    """The metrics where the data set has the checkpoint's order."""
    return cache(lambda kind, head: evaluate(configured(data, kind, head), weights[head]))


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize(
    ('plain', 'reordered', 'classes'),
    [
        ('VOC', 'VOC', SHUFFLED),
        ('CheckedCocoDataset same', 'CheckedCocoDataset shuffled', SHUFFLED),
        ('CheckedCocoDataset same', 'CheckedCocoDataset shuffled', CLASSES),
        ('CheckedCocoDataset same', 'CheckedCocoDataset same', SHUFFLED),
        ('CocoDataset same', 'CocoDataset shuffled', SHUFFLED),
        ('CocoDataset same', 'CocoDataset same', SHUFFLED),
    ],
)
def test_another_order_of_the_classes_gives_the_same_metrics(
    plain, reordered, classes, head, data, weights, as_it_is
):
    expected = as_it_is(plain, head)
    found = evaluate(configured(data, reordered, head, classes), weights[head])
    assert found == pytest.approx(expected, abs=1e-6)
    assert max(value for key, value in found.items() if 'mAP' in key) > 0


def test_the_order_matters(data, weights, as_it_is, tmp_path):
    """Without names, the scores are taken as they are."""
    loaded = torch.load(weights['softmax'])
    torch.save(dict(state_dict=loaded['state_dict']), tmp_path / 'nameless.pth')
    found = evaluate(configured(data, 'VOC', 'softmax', SHUFFLED), str(tmp_path / 'nameless.pth'))
    assert found != pytest.approx(as_it_is('VOC', 'softmax'), abs=1e-3)


def test_an_averaging_hook_gets_the_scores_in_order_too(data, weights, as_it_is):
    """It copies the weights when they are loaded, and evaluates its copy."""
    cfg = configured(data, 'VOC', 'softmax', SHUFFLED)
    cfg.custom_hooks = [dict(type='EMAHook')]
    assert evaluate(cfg, weights['softmax']) == pytest.approx(as_it_is('VOC', 'softmax'), abs=1e-6)
    lacking = torch.load(weights['softmax'])
    del lacking['state_dict']['backbone.conv1.weight']
    torch.save(lacking, data / 'lacking.pth')
    with pytest.raises(CheckpointError, match='it has no backbone.conv1.weight'):
        evaluate(cfg, str(data / 'lacking.pth'))


def test_names_that_differ_in_case_and_blanks_are_the_same(data, weights, as_it_is, capsys):
    cfg = configured(data, 'VOC', 'softmax')
    state = torch.load(weights['softmax'])
    state['meta']['dataset_meta']['classes'] = tuple(f' {c.upper()}' for c in CLASSES)
    torch.save(state, data / 'upper.pth')
    assert evaluate(cfg, str(data / 'upper.pth')) == pytest.approx(as_it_is('VOC', 'softmax'))
    assert "writes classes in another way: ' CIRCLE' for 'circle'" in capsys.readouterr().out


def test_a_detector_has_the_order_of_its_checkpoint(data, weights):
    cfg = configured(data, 'VOC', 'softmax', SHUFFLED)
    detector, classes = load_detector(cfg, weights['softmax'])
    assert classes == CLASSES
    state = torch.load(weights['softmax'])['state_dict']
    assert all(torch.equal(value, state[name]) for name, value in detector.state_dict().items())


@pytest.mark.parametrize('number', [5, 80])
def test_other_names_are_refused_with_what_differs(number, data, weights, tmp_path):
    """Of long lists, the names that differ."""
    names = tuple(f'class {i}' for i in range(number - 1))
    cfg = configured(data, 'VOC', 'softmax', (*names, 'circle'))
    cfg.model.bbox_head.num_classes = number
    detector = lively_detector(cfg, (160, 160))
    meta = dict(dataset_meta=dict(classes=(*names, 'dog')))
    torch.save(dict(state_dict=detector.state_dict(), meta=meta), tmp_path / 'dog.pth')
    for load in (load_detector, evaluate):
        with pytest.raises(CheckpointError) as error:
            load(cfg, str(tmp_path / 'dog.pth'))
        said = str(error.value)
        assert 'dog' in said and 'circle' in said and '\n' not in said
        assert ('class 3' in said) == (number == 5)


def test_all_configs_of_coco_and_voc_know_the_names_of_converted_models():
    from ssd_plugin.checkpoints.layouts import LAYOUTS
    from ssd_plugin.checkpoints.load import dataset_classes
    from ssd_plugin.datasets.config import plain_test_set

    for layout in LAYOUTS:
        for outputs, config in layout.configs.items():
            classes = layout.classes(outputs)
            if classes:
                cfg = Config.fromfile(ROOT / 'configs' / config)
                assert dataset_classes(plain_test_set(cfg)) == classes
