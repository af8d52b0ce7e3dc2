"""--data-root as a user types it: from a folder to a detector that has been tested."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.support.commands import ROOT, run_warm
from tests.support.data_folders import (
    JPEGS,
    NAMES,
    coco_document,
    save_json,
    table_rows,
    voc_object,
    voc_xml,
    write_coco,
    write_voc,
)

TRAIN, TEST = ROOT / 'tools/train.py', ROOT / 'tools/test.py'
CONFIG = ROOT / 'configs/demo_shapes.py'
# An epoch of one process, as quick as can be.
QUICK = [
    'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1',
    'default_hooks.logger.interval=1', 'model.test_cfg.score_thr=0', 'model.test_cfg.max_per_img=9',
    *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
    *(f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val', 'test')),
]  # fmt: skip


def load(folder):
    """The checkpoint that a training has written."""
    return torch.load(folder / 'epoch_1.pth', map_location='cpu')


def mean_ap(output):
    return re.findall(r'pascal_voc/mAP: (\d\.\d+)', output)[-1]


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
    """PNGs without lists; one annotation is broken, one box has no area."""
    root = tmp_path_factory.mktemp('commands') / 'pets'
    write_voc(root, NAMES, classes=('cat', 'dog', 'cow'), suffix='.png')
    (root / 'Annotations' / f'{NAMES[0]}.xml').write_text('<annotation>')
    faulty = voc_xml(voc_object('cat'), voc_object('dog', box=(9, 9, 9, 20)))
    (root / 'Annotations' / f'{NAMES[1]}.xml').write_text(faulty)
    return root


@pytest.fixture(scope='module')
def trained(voc):
    """Work directory and output of training on two of the classes."""
    data = ['--data-root', voc.name, '--classes', 'dog,cat', '--work-dir', 'work', '--verbose']
    output = run_warm(TRAIN, CONFIG, *data, '--cfg-options', *QUICK, cwd=voc.parent)
    return voc.parent / 'work', output


def test_a_folder_is_trained_on_and_told_about(trained):
    work_dir, output = trained
    table = output.split('System environment')[0]
    rows = {row[0]: sum(map(int, row[1:])) for row in table_rows(table)}
    faults = {'unreadable annotations': 1, 'boxes without area': 1}
    used = {'images': 9, 'of these, without objects': 3, 'dog': 2, 'cat': 4}
    assert rows == used | {'other classes, left out': 3, **faults}
    assert '20% of the images for val' in table
    assert load(work_dir)['meta']['dataset_meta']['classes'] == ('dog', 'cat')
    assert float(mean_ap(output)) >= 0
    documents = [json.loads((work_dir / f'data/{p}.json').read_text()) for p in ('train', 'val')]
    assert [len(document['images']) for document in documents] in ([7, 2], [8, 1])


def test_the_config_that_is_written_repeats_the_run(trained, tmp_path):
    """From anywhere, without an option."""
    work_dir, output = trained
    config = re.search(r'To repeat this run: python tools/train.py (.*)', output)[1]
    assert config == 'work/demo_shapes_on_pets.py'
    run_warm(TRAIN, work_dir / Path(config).name, '--work-dir', tmp_path, cwd=tmp_path)
    first, again = load(work_dir), load(tmp_path)
    torch.testing.assert_close(first['state_dict'], again['state_dict'], rtol=0, atol=0)
    states = first['optimizer']['state'], again['optimizer']['state']
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_the_config_of_a_run_that_was_resumed_repeats_all_of_it(trained, voc, tmp_path):
    work_dir, _ = trained
    shutil.copytree(work_dir, tmp_path / 'work')
    data = ['--data-root', voc, '--classes', 'dog,cat', '--work-dir', 'work', '--resume']
    run_warm(TRAIN, CONFIG, *data, '--cfg-options', *QUICK, cwd=tmp_path)
    again, first = (folder / 'demo_shapes_on_pets.py' for folder in (tmp_path / 'work', work_dir))
    assert 'resume=False' in again.read_text().replace(' ', '')
    same = again.read_text().replace(str(tmp_path), str(work_dir.parent))
    assert same == first.read_text()


def test_evaluation_has_the_classes_of_the_checkpoint(trained, voc, tmp_path):
    """And the images that training has evaluated on; what repeats the training stays."""
    work_dir, training = trained
    before = {path: path.read_bytes() for path in (work_dir / 'data').iterdir()}
    config = work_dir / 'demo_shapes_on_pets.py'
    before[config] = config.read_bytes()
    data = [work_dir / 'epoch_1.pth', '--data-root', voc, '--work-dir', work_dir, '--verbose']
    output = run_warm(TEST, config, *data, '--cfg-options', *QUICK, cwd=tmp_path)
    rows = table_rows(output.split('System environment')[0])
    assert [row[0] for row in rows if row[0] in ('dog', 'cat', 'cow')] == ['dog', 'cat']
    assert mean_ap(output) == mean_ap(training)
    written = [(work_dir / folder / 'val.json').read_text() for folder in ('data', 'test_data')]
    assert written[0] == written[1]
    assert {path: path.read_bytes() for path in before} == before, 'training could not be repeated'


def test_a_coco_json_is_trained_and_evaluated_on(tmp_path):
    write_coco(tmp_path / 'mine' / 'train.json', tmp_path / 'mine' / 'images', JPEGS)
    # To evaluate on: categories in another order, of which one is new.
    document = coco_document(JPEGS[:2], classes=('cow', 'cat', 'dog'))
    save_json(tmp_path / 'mine' / 'val.json', document)
    data = ['--data-root', 'mine', '--classes', 'dog,cat', '--verbose']
    output = run_warm(TRAIN, CONFIG, *data, '--cfg-options', *QUICK, cwd=tmp_path)
    assert 'pascal_voc/mAP: ' in output, "the config's own metric"
    work_dir = tmp_path / 'work_dirs' / 'demo_shapes'
    assert load(work_dir)['meta']['dataset_meta']['classes'] == ('dog', 'cat')
    written = json.loads((work_dir / 'data' / 'val.json').read_text())
    assert [category['name'] for category in written['categories']] == ['dog', 'cat']


@pytest.mark.parametrize('args, expected', [
    ([TRAIN, CONFIG, '--data-root', 'empty'], 'Looked for images, '),
    ([TRAIN, CONFIG, '--data-root', 'pets', '--classes', 'pig,cat'],
     'pets has no pig; it has cat, cow, dog'),
    ([TRAIN, CONFIG, '--data-root', 'pets', '--classes', 'Dog'], 'Did you mean dog?'),
    ([TRAIN, CONFIG, '--data-root', '.', '--classes', 'cat,cat'], 'no list of different names'),
    ([TRAIN, CONFIG, '--data-root', '.', '--classes', 'cat,'], 'no list of different names'),
    ([TEST, CONFIG, 'work/epoch_1.pth', '--data-root', 'other'],
     'other has pig, and the checkpoint knows dog, cat'),
])  # fmt: skip
def test_a_mistake_of_the_user_is_one_line(args, expected, trained):
    folder = trained[0].parent
    (folder / 'empty').mkdir(exist_ok=True)
    write_voc(folder / 'other', NAMES[:2], classes=('pig',))
    assert expected in run_warm(*args, cwd=folder, fails=True).splitlines()[-1]
