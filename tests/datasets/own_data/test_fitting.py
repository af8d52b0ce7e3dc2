"""What --data-root makes of a config, and what it prints and writes."""

import json
from pathlib import Path
from types import SimpleNamespace

import _common
import _own_data as command
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config

from ssd_plugin.datasets.config import leaf_datasets
from ssd_plugin.engine.recipe import take_recipe
from ssd_plugin.errors import DataRootError
from tests.support.commands import ROOT
from tests.support.data_folders import (
    JPEGS,
    NAMES,
    save_json,
    table_rows,
    voc_object,
    voc_xml,
    write_coco,
    write_voc,
)

CONFIGS = ROOT / 'configs'
ALL_CONFIGS = sorted(CONFIGS.glob('*.py'))


def arguments(config, root, work_dir, **changes):
    config = config if isinstance(config, Path) else CONFIGS / f'{config}.py'
    args = dict(config=str(config), data_root=str(root), work_dir=str(work_dir), classes=None)
    return SimpleNamespace(
        **args | dict(cfg_options=None, launcher='none', strict=False, epochs=None) | changes
    )


def fit(config, root, work_dir, **changes):
    """The config that training gets, of a path or the name of one of the project's."""
    args = arguments(config, root, work_dir, **changes)
    with _common.one_line_errors(args):
        return command.fit_for_training(_common.load_config(args), args)


def fit_test(root, checkpoint, work_dir):
    """The config that testing gets."""
    args = arguments('demo_shapes', root, work_dir, checkpoint=checkpoint)
    cfg = _common.load_config(args)
    with _common.one_line_errors(args):
        command.fit_for_testing(cfg, args, command.read_for_testing(args))
    return cfg


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
    root = tmp_path_factory.mktemp('voc') / 'my pets'
    return write_voc(root, NAMES, dict(train=NAMES[:6], val=NAMES[6:8], test=NAMES[8:]))


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    root = tmp_path_factory.mktemp('coco')
    for part, names in (('train', JPEGS[:6]), ('val', JPEGS[6:])):
        write_coco(root / f'{part}.json', root / 'images', names)
    return root


# ------------------------------------------------------------------------------ data, evaluators


def names_in(file):
    """The images of a document."""
    return [Path(image['file_name']).stem for image in json.loads(Path(file).read_text())['images']]


@pytest.mark.parametrize('path', ALL_CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains_on_a_voc_folder_and_on_a_coco_json(path, voc, coco, tmp_path):
    """With its own pipelines and evaluators, whatever the format is."""
    original = Config.fromfile(path)
    for root, parts in (
        (voc, dict(train=NAMES[:6], val=NAMES[6:8], test=NAMES[8:])),
        (coco, dict(train=NAMES[:6], val=NAMES[6:], test=NAMES[6:])),
    ):
        cfg = fit(path, root, tmp_path)
        assert cfg.model.bbox_head.num_classes == 2
        assert 'prepare_data' not in cfg and cfg.train_dataloader.batch_size <= 6
        take_recipe(original)  # changes the strength of the augmentation
        for split, names in parts.items():
            [old, *_] = leaf_datasets(original[f'{split}_dataloader'].dataset)
            dataset = cfg[f'{split}_dataloader'].dataset
            assert (dataset.type, dataset.data_root) == ('CheckedCocoDataset', f'{root}/')
            assert dataset.data_prefix == dict(img='')
            assert tuple(dataset.metainfo.classes) == ('cat', 'dog')
            assert names_in(dataset.ann_file) == names
            assert (
                bool(dataset.get('test_mode')) == bool(old.get('test_mode')) == (split != 'train')
            )
            kept = [step for step in old.pipeline if step.type != 'TrainOnDifficult']
            assert dataset.pipeline == kept
            assert 'filter_cfg' not in dataset, 'images without objects are kept'
        for split in ('val', 'test'):
            old, new = original[f'{split}_evaluator'], cfg[f'{split}_evaluator']
            assert new.type == old.type
            if new.type == 'CocoMetric':
                assert new.ann_file == cfg[f'{split}_dataloader'].dataset.ann_file
            else:
                assert new.eval_mode == 'area'


def test_evaluators_keep_their_settings(voc, coco, tmp_path):
    root = write_voc(tmp_path / 'VOC2007', NAMES, dict(trainval=NAMES[:8], test=NAMES[8:]))
    assert fit('ssd300_voc', root, tmp_path / 'work').val_evaluator.eval_mode == '11points'
    path = tmp_path / 'two.py'
    path.write_text(f"""
_base_ = '{CONFIGS / 'ssd300_coco.py'}'
mine = dict(type='VOCDetMetric', iou_thrs=[0.5, 0.75])
test_evaluator = val_evaluator = [dict(_base_.val_evaluator, classwise=True), mine]""")
    for root in (coco, voc):
        first, second = fit(path, root, tmp_path / 'work').val_evaluator
        file = str(tmp_path / 'work/data/val.json')
        assert first == dict(type='CocoMetric', metric='bbox', classwise=True, ann_file=file)
        # In VOC's files the last pixel of a box is part of it.
        pixels = dict(use_legacy_coordinate=False) if root == coco else {}
        assert second == dict(type='VOCDetMetric', iou_thrs=[0.5, 0.75], eval_mode='area', **pixels)


@pytest.mark.parametrize('config, expected', [
    ('ssd300_voc', 5), ('demo_shapes', 5), ('retinanet_r50_hnm_voc', 5), ('mine', 7),
    ('focal', None),
])  # fmt: skip
def test_images_without_objects_teach_what_background_is(config, expected, tmp_path, capsys):
    root = write_voc(tmp_path / 'data', NAMES, dict(train=NAMES[:8], val=NAMES[8:]))
    (root / 'Annotations' / 'image 00.xml').write_text(voc_xml())
    heads = dict(
        mine="dict(type='HardNegativeMiningLoss', min_negatives=7)",
        focal="dict(type='FocalLoss', use_sigmoid=True)",
    )
    path = CONFIGS / f'{config}.py'
    if config in heads:
        path = tmp_path / f'{config}.py'
        path.write_text(
            f"_base_ = '{CONFIGS / 'demo_shapes.py'}'\n"
            f'model = dict(bbox_head=dict(loss_cls={heads[config]}))'
        )
    cfg = fit(path, root, tmp_path / 'work')
    assert cfg.model.bbox_head.loss_cls.get('min_negatives') == expected
    assert cfg.train_dataloader.batch_size == 8
    dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, serialize_data=False))
    assert [len(dataset.get_data_info(i)['instances']) for i in range(8)] == [0] + [1] * 7
    how = f', with min_negatives={expected} (docs/losses.md)' if expected else ''
    output = capsys.readouterr().out
    assert f'Images without objects are trained on, as background{how}.' in output
    assert ['of these, without objects', '1', '0'] in table_rows(output)
    # The user may have them left out.
    options = {'train_dataloader.dataset.filter_cfg': dict(filter_empty_gt=True)}
    cfg = fit(path, root, tmp_path / 'work', cfg_options=options)
    assert cfg.train_dataloader.batch_size == 7
    assert 'Images without objects are not trained on.' in capsys.readouterr().out


@pytest.mark.parametrize('config', ALL_CONFIGS, ids=lambda path: path.stem)
def test_crowds_are_no_background_where_there_are_some(config, coco, tmp_path, capsys):
    before = Config.fromfile(config).model.train_cfg
    assert fit(config, coco, tmp_path / 'work').model.train_cfg == before
    assert 'Crowds' not in capsys.readouterr().out
    document = write_coco(tmp_path / 'data/train.json', tmp_path / 'data', JPEGS[:6])
    document['annotations'][0]['iscrowd'] = 1
    save_json(tmp_path / 'data/train.json', document)
    write_coco(tmp_path / 'data/val.json', tmp_path / 'data', JPEGS[6:])
    cfg = fit(config, tmp_path / 'data', tmp_path / 'work')
    assert cfg.model.train_cfg.assigner.ignore_iof_thr == 0.5
    assert 'Crowds are neither objects nor background.' in capsys.readouterr().out


def test_a_test_without_annotations_does_not_stop_training(tmp_path, capsys):
    lists = dict(train=NAMES[:5], val=NAMES[5:8], test=NAMES[8:])
    root = write_voc(tmp_path / 'data', NAMES, lists)
    for name in NAMES[8:]:
        (root / 'Annotations' / f'{name}.xml').unlink()
    cfg = fit('demo_shapes', root, tmp_path / 'work')
    assert names_in(cfg.test_dataloader.dataset.ann_file) == NAMES[5:8]
    assert 'No images for test, which training does without: 2 missing' in capsys.readouterr().out


def test_a_work_dir_with_a_training_on_other_data_is_told(voc, coco, tmp_path, capsys):
    cfg = fit('demo_shapes', voc, tmp_path)
    (tmp_path / cfg.filename).touch()
    fit('ssd300_voc', voc, tmp_path)
    assert 'other data' not in capsys.readouterr().out
    fit('demo_shapes', coco, tmp_path)
    note = f'{tmp_path} has a training on other data, whose config, demo_shapes_on_my_pets.py'
    assert note in capsys.readouterr().out


def test_a_loss_stays_where_all_images_have_objects(voc, tmp_path):
    assert 'loss_cls' not in fit('demo_shapes', voc, tmp_path).model.bbox_head


def test_repetitions_stay_and_concatenations_go(voc, tmp_path):
    path = tmp_path / 'repeated.py'
    path.write_text(f"""
_base_ = '{CONFIGS / 'ssd300_voc.py'}'
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=3,
                                     dataset=_base_.train_dataloader.dataset))""")
    dataset = fit(path, voc, tmp_path / 'work').train_dataloader.dataset
    assert (dataset.type, dataset.times) == ('RepeatDataset', 3)
    assert dataset.dataset.type == 'CheckedCocoDataset'


def test_a_model_whose_number_of_classes_cannot_be_set_is_refused(voc, tmp_path):
    path = tmp_path / 'other.py'
    path.write_text(f"_base_ = '{CONFIGS / 'demo_shapes.py'}'\nmodel = dict(_delete_=True)")
    with pytest.raises(SystemExit, match=r'needs model\.bbox_head\.num_classes in .*other\.py'):
        fit(path, voc, tmp_path / 'work')


def test_options_of_the_user_win(voc, tmp_path):
    options = {'val_evaluator.eval_mode': '11points', 'randomness.seed': 7}
    options['train_dataloader.dataset.filter_cfg'] = dict(filter_empty_gt=False)
    cfg = fit('ssd300_voc', voc, tmp_path, cfg_options=options)
    assert cfg.val_evaluator.eval_mode == '11points'
    assert cfg.train_dataloader.dataset.filter_cfg == dict(filter_empty_gt=False)
    assert cfg.randomness.seed == 7
    assert fit('ssd300_voc', voc, tmp_path).randomness.seed == 0


# ----------------------------------------------------------------------------------- classes


def test_classes_are_narrowed_in_the_order_that_the_user_says(tmp_path, capsys):
    root = write_voc(tmp_path / 'data', NAMES, classes=('cat', 'dog', 'cow'))
    cfg = fit('demo_shapes', root, tmp_path / 'work', classes=['dog', 'cat'])
    assert cfg.train_dataloader.dataset.metainfo.classes == cfg.classes == ('dog', 'cat')
    assert cfg.model.bbox_head.num_classes == 2
    rows = {row[0]: sum(map(int, row[1:])) for row in table_rows(capsys.readouterr().out)}
    assert list(rows)[1:4] == ['of these, without objects', 'dog', 'cat']
    assert rows['of these, without objects'] == 3
    assert (rows['other classes, left out'], rows['cat']) == (3, 4)


def test_the_order_of_the_config_stands_where_its_classes_are_the_same(tmp_path):
    names = ('circle', 'square', 'triangle', 'star', 'cross')
    root = write_voc(tmp_path / 'data', NAMES, classes=names)
    for config, expected in (('demo_shapes', names), ('ssd300_voc', tuple(sorted(names)))):
        cfg = fit(config, root, tmp_path / 'work')
        assert cfg.train_dataloader.dataset.metainfo.classes == expected


def test_classes_that_are_not_there(voc, coco, tmp_path):
    for root in (voc, coco):
        with pytest.raises(SystemExit, match='has no cow, pig; it has cat, dog$'):
            fit('demo_shapes', root, tmp_path, classes=['cow', 'cat', 'pig'])


def test_objects_to_train_on_are_needed(tmp_path, capsys):
    root = write_voc(tmp_path / 'none', NAMES)
    for path in (root / 'Annotations').iterdir():
        path.write_text(voc_xml())
    with pytest.raises(SystemExit, match='there are images, but no objects'):
        fit('demo_shapes', root, tmp_path / 'work')
    root = write_voc(tmp_path / 'val', NAMES[:4], dict(train=NAMES[:3:2], val=NAMES[1:4:2]))
    with pytest.raises(SystemExit, match='no dog to train on'):
        fit('demo_shapes', root, tmp_path / 'work', classes=['dog'])
    fit('demo_shapes', root, tmp_path / 'work')
    assert 'Nothing to train on: dog.' in capsys.readouterr().out


# --------------------------------------------------------------- batch, learning rate, schedule


FEWER = {'train_cfg.max_iters': 1000, 'param_scheduler.1.milestones': [667, 833]}


@pytest.mark.parametrize('config, number, options, expected', [
    ('ssd300_voc', 50, {},
     ['Recipe: ssd_plugin::_base_/own_data.py, for own data, in place of the config',
      'Learning rate: 0.001, as the config has it for batches of 16']),
    ('ssdlite320_mobilenetv2_coco', 50, {'own_data_recipe': ''},
     ['Learning rate: 0.001875 for batches of 24; the config has 0.015 for batches of 192']),
    ('demo_shapes', 50, {}, ['Learning rate: 0.06, as the config has it for batches of 8']),
    ('demo_shapes', 50, {'train_dataloader.batch_size': 4},
     ['Learning rate: 0.03 for batches of 4']),
    ('demo_shapes', 50, {'optim_wrapper.optimizer.lr': 0.5},
     ['Learning rate: 0.5, as --cfg-options have it']),
    ('ssd300_voc', 50, {'auto_scale_lr.enable': False},
     ['Learning rate: 0.001, as --cfg-options have it']),
    ('ssd300_voc', 6, {},
     ['Batch: 6 images a process, since there are no more.',
      'Learning rate: 0.000375 for batches of 6',
      'Schedule: 100 epochs of 1 iteration, as the config has it; --epochs N changes it.\n']),
    ('ssd300_voc', 6, {'own_data_recipe': ''},
     ['Learning rate: 0.0001875 for batches of 6',
      'Schedule: 100 epochs of 1 iteration, chosen for 6 images; --epochs N changes it.\n']),
    ('ssd300_voc', 6, FEWER, ['1000 passes over 6 images; --epochs N']),
    ('ssd300_voc', 6, {'train_cfg.max_epochs': 30}, ['Schedule: 30 epochs of 1 iteration']),
    ('demo_shapes', 9, {}, ["an epoch's last, of one image, is left out",
                            'Schedule: 26 epochs of 1 iteration']),
])  # fmt: skip
def test_batch_learning_rate_and_schedule_suit_the_folder(
    config, number, options, expected, folders, tmp_path, capsys
):
    cfg = fit(config, folders[number], tmp_path, cfg_options=options)
    output = capsys.readouterr().out
    assert all(sentence in output for sentence in expected), output
    if number == 6:
        assert cfg.train_dataloader.batch_size == 6
        length = cfg.train_cfg.get('max_epochs', cfg.train_cfg.get('max_iters'))
        scheduler = cfg.param_scheduler[1]
        if 'Recipe' in output:
            assert scheduler.T_max == length
        else:
            assert scheduler.milestones == [round(length * 2 / 3), round(length * 5 / 6)]
    assert cfg.train_dataloader.get('drop_last', False) is (number == 9)
    scaled = '--cfg-options have it' not in output
    assert cfg.get('auto_scale_lr', {}).get('enable', False) is scaled


@pytest.fixture(scope='module')
def folders(tmp_path_factory, voc):
    """Folders by how many images there are to train on."""
    root = tmp_path_factory.mktemp('folders')
    nine = write_voc(root / 'nine', NAMES[:9], dict(train=NAMES[:9], val=NAMES[:1]))
    return {6: voc, 9: nine, 50: write_voc(root / 'fifty', [f'{i}' for i in range(50)])}


def test_pascal_voc_itself_is_trained_on_as_the_config_for_it_says(tmp_path, capsys):
    devkit = write_voc(tmp_path / 'VOC2007', NAMES, dict(trainval=NAMES[:8], test=NAMES[8:]))
    cfg = fit('ssd300_voc', devkit, tmp_path / 'work')
    own = Config.fromfile(CONFIGS / 'ssd300_voc.py', import_custom_modules=False)
    for key in ('train_cfg', 'param_scheduler', 'optim_wrapper', 'log_processor'):
        assert cfg[key] == own[key]
    assert 'Schedule: 120000 iterations of 8 images, which are 120000' in capsys.readouterr().out
    assert fit('ssd300_voc', devkit, tmp_path / 'work', epochs=3).train_cfg.max_epochs == 3
    light = fit('ssdlite320_mobilenetv2', devkit, tmp_path / 'work')  # has no schedule for VOC
    assert light.train_cfg.max_epochs == 100


def test_the_batch_is_that_of_all_processes(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('RANK', '0')
    fit('demo_shapes', folders[50], tmp_path, launcher='pytorch')
    output = capsys.readouterr().out
    assert 'Learning rate: 0.12 for batches of 16' in output
    assert '26 epochs of 3 iterations' in output
    monkeypatch.setenv('RANK', '1')
    fit('demo_shapes', folders[50], tmp_path, launcher='pytorch')
    assert capsys.readouterr().out == '', 'one process reports'


# ----------------------------------------------------------------------------------- testing


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'checkpoint.pth'
    weights = dict(weight=torch.zeros(1))
    meta = dict(dataset_meta=dict(classes=('dog', 'cat')))
    torch.save(dict(meta=meta, state_dict=weights), path)
    return str(path)


def test_classes_are_those_of_the_checkpoint(checkpoint, tmp_path):
    nameless = str(tmp_path / 'nameless.pth')
    torch.save(dict(state_dict=dict(weight=torch.zeros(1))), nameless)
    mine = ['dog', 'cat']
    for path, wanted in ((checkpoint, None), (checkpoint, mine), (nameless, mine)):
        assert command.classes_of(path, wanted) == mine
    with pytest.raises(DataRootError, match='^--classes has cat, dog, .* dog, cat$'):
        command.classes_of(checkpoint, ['cat', 'dog'])
    with pytest.raises(DataRootError, match="doesn't name its classes"):
        command.classes_of(nameless, None)


def test_testing_takes_the_test_part_and_counts_unknown_classes(checkpoint, tmp_path, capsys):
    lists = dict(train=NAMES[:4], val=NAMES[4:6], test=NAMES[6:])
    root = write_voc(tmp_path / 'data', NAMES, lists, classes=('cat', 'pig'))
    cfg = fit_test(root, checkpoint, tmp_path / 'work')
    assert cfg.test_dataloader.dataset.metainfo.classes == ('dog', 'cat')
    assert names_in(cfg.test_dataloader.dataset.ann_file) == NAMES[6:]
    assert cfg.model.bbox_head.num_classes == 2
    expected = [['images', '4'], ['of these, without objects', '2'], ['dog', '0'], ['cat', '2']]
    expected.append(['other classes, left out', '2'])
    assert table_rows(capsys.readouterr().out) == expected


def test_testing_without_a_test_part_takes_that_for_validation(checkpoint, coco, tmp_path):
    cfg = fit_test(coco, checkpoint, tmp_path / 'work')
    file = str(tmp_path / 'work' / 'test_data' / 'val.json')
    assert cfg.test_dataloader.dataset.ann_file == file
    categories = json.loads(Path(file).read_text())['categories']
    assert [category['name'] for category in categories] == ['dog', 'cat']


# ------------------------------------------------------------------- what is told and written


def test_what_was_found_is_told_and_written_down(tmp_path, capsys):
    root = write_voc(tmp_path / '[data]', NAMES, dict(train=NAMES[:8], val=NAMES[8:]))
    annotations = [root / 'Annotations' / f'{name}.xml' for name in NAMES[:2]]
    faulty = voc_object('[b]cat', box=(9, 9, 9, 20)), voc_object('dog', difficult=1)
    annotations[0].write_text(voc_xml(*faulty))
    annotations[1].write_text('<annotation>')
    cfg = fit('demo_shapes', root, tmp_path / 'work')
    output = capsys.readouterr().out
    assert f'{root}: VOC (10 XML files in Annotations/)' in output
    assert table_rows(output) == [
        ['images', '7', '2'],
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
        'train\tJPEGImages/image 00.jpg\tboxes without area\t[b]cat (8, 8, 8, 19) in 80 x 60',
        'train\tAnnotations/image 01.xml\tunreadable annotations\tno element found: line 1, '
        'column 12',
    ]
    names = ['faults.txt', 'summary.txt', 'train.json', 'val.json']
    assert sorted(path.name for path in written.iterdir()) == names
    assert cfg.filename == 'demo_shapes_on__data_.py'
    assert f'python tools/train.py {tmp_path / "work" / cfg.filename}\n' in output

    for path in annotations:
        path.write_text(voc_xml(voc_object()))
    fit('demo_shapes', root, tmp_path / 'work')
    assert not (written / 'faults.txt').exists()


def test_a_config_that_was_fitted_keeps_its_name_and_may_be_a_base(voc, tmp_path):
    cfg = fit('demo_shapes', voc, tmp_path)
    assert cfg.filename == 'demo_shapes_on_my_pets.py'
    cfg.dump(str(tmp_path / cfg.filename))
    again = fit(tmp_path / cfg.filename, voc, tmp_path)
    assert again.filename == cfg.filename
    assert again.to_dict() == cfg.to_dict()
    # As docs/your_data.md shows it.
    page = (ROOT / 'docs' / 'your_data.md').read_text()
    code = page.split('## Going on with a config')[1].split('```python\n')[1].split('```')[0]
    work_dir = tmp_path / 'work_dirs' / 'demo_shapes'
    work_dir.mkdir(parents=True)
    cfg.dump(str(work_dir / 'demo_shapes_on_shapes.py'))
    (tmp_path / 'longer.py').write_text(code)
    cfg = Config.fromfile(tmp_path / 'longer.py', import_custom_modules=False)
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.type) == (50, 'EpochBasedTrainLoop')
    assert cfg.work_dir == 'work_dirs/longer'
    assert cfg.train_dataloader.dataset.type == 'CheckedCocoDataset'


def test_a_work_dir_that_cannot_be_written_ends_in_a_line(voc, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit, match="Not a directory: '.*file"):
        fit('demo_shapes', voc, tmp_path / 'file')
