"""Missing data are reported before anything heavy is imported or built."""

import pytest
from _data_check import DataNotFoundError, check_data
from mmdet.registry import DATASETS
from mmengine.config import Config

from tests.support.commands import ROOT

CONFIGS = ROOT / 'configs'
COMMAND = 'python tools/prepare_data.py voc data'


def config(dataset, split='train', **keys):
    return Config({f'{split}_dataloader': dict(dataset=dataset), **keys})


def coco(root, **keys):
    files = dict(ann_file='annotations/train.json', data_prefix=dict(img='train/'))
    return dict(files, type='CocoDataset', data_root=str(root)) | keys


def voc(root, **keys):
    lists, tree = 'VOC2007/ImageSets/Main/trainval.txt', dict(sub_data_root='VOC2007/')
    return dict(type='VOCDataset', data_root=str(root), ann_file=lists, data_prefix=tree) | keys


@pytest.fixture
def coco_root(tmp_path):
    for folder in ('train', 'annotations/train.json'):
        (tmp_path / 'coco' / folder).mkdir(parents=True)
    return tmp_path / 'coco'


@pytest.fixture
def voc_root(tmp_path):
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main/trainval.txt'):
        (tmp_path / 'VOCdevkit' / 'VOC2007' / folder).mkdir(parents=True)
    return tmp_path / 'VOCdevkit'


def missing(cfg, path, splits=('train', 'val', 'test')):
    """The message about this path, which is one line."""
    with pytest.raises(DataNotFoundError) as caught:
        check_data(cfg, splits)
    message = str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)
    assert message.startswith(f'{path} is missing') and '\n' not in message
    return message


def test_data_that_are_there_pass(coco_root, voc_root):
    check_data(config([coco(coco_root), voc(voc_root)], val_dataloader=None))
    check_data(Config())


def test_the_message_names_the_split_and_the_command(tmp_path):
    path = tmp_path / 'annotations' / 'train.json'
    message = missing(config(coco(tmp_path), split='val', prepare_data=COMMAND), path)
    assert '(val data)' in message and f'`{COMMAND}`' in message
    message = missing(config(coco(tmp_path)), path)
    assert '(train data)' in message and 'set data_root' in message and '`' not in message


@pytest.mark.parametrize('gone', ['annotations/train.json', 'train/'])
def test_each_path_of_a_coco_set_is_looked_for(gone, coco_root):
    (coco_root / gone).rename(coco_root / 'elsewhere')
    missing(config(coco(coco_root)), f'{coco_root}/{gone}')


@pytest.mark.parametrize('gone', ['ImageSets/Main/trainval.txt', 'JPEGImages', 'Annotations'])
def test_each_path_of_a_voc_tree_is_looked_for(gone, voc_root):
    tree = voc_root / 'VOC2007'
    keys = dict(ann_file='ImageSets/Main/trainval.txt', data_prefix=dict(sub_data_root=''))
    configs = [config(voc(voc_root)), config(voc(tree, **keys))]  # a tree may be the root itself
    for cfg in configs:
        check_data(cfg)
    (tree / gone).rename(voc_root / 'elsewhere')
    for cfg in configs:
        missing(cfg, tree / gone)


@pytest.mark.parametrize('gone, key', [('JPEGImages', 'img_subdir'), ('Annotations', 'ann_subdir')])
def test_folders_of_a_voc_tree_may_have_other_names(gone, key, voc_root):
    (voc_root / 'VOC2007' / gone).rename(voc_root / 'VOC2007' / 'mine')
    check_data(config(voc(voc_root, **{key: 'mine'})))
    missing(config(voc(voc_root)), voc_root / 'VOC2007' / gone)


@pytest.mark.parametrize('wrap', [
    lambda dataset, there: dict(dataset=dataset, times=3),
    lambda dataset, there: dict(datasets=[there, dataset]),
    lambda dataset, there: dict(dataset=dict(datasets=[there, dataset])),
    lambda dataset, there: [there, dataset],
])  # fmt: skip
def test_wrappers_are_looked_into(wrap, coco_root, tmp_path):
    gone = tmp_path / 'gone'
    check_data(config(wrap(coco(coco_root), coco(coco_root))))
    missing(config(wrap(coco(gone), coco(coco_root))), gone / 'annotations/train.json')


def test_only_the_splits_asked_for_are_checked(coco_root, tmp_path):
    cfg = config(coco(coco_root), val_dataloader=dict(dataset=coco(tmp_path / 'gone')))
    check_data(cfg, ('train', 'test'))
    missing(cfg, tmp_path / 'gone/annotations/train.json', ('train', 'val'))


def test_absolute_paths_and_paths_without_a_root(coco_root, tmp_path, monkeypatch):
    file, folder = str(coco_root / 'annotations/train.json'), str(coco_root / 'train')
    for root in (tmp_path / 'gone', coco_root):
        check_data(config(coco(root, ann_file=file, data_prefix=dict(img=folder))))
        absolute = coco(root, ann_file=file, data_prefix=dict(img=f'{folder}2'))
        missing(config(absolute), f'{folder}2')
    missing(config(coco('')), 'annotations/train.json')
    monkeypatch.chdir(coco_root)
    check_data(config(coco('')))


@pytest.mark.parametrize('keys', [
    dict(data_root='s3://bucket/coco'),
    dict(backend_args=dict(backend='petrel')),
    dict(ann_file='http://host/train.json', data_prefix=dict(img='s3://bucket/train')),
    dict(ann_file='', data_prefix=dict(img='train.lmdb')),
])  # fmt: skip
def test_other_storage_is_not_looked_for(keys, tmp_path):
    check_data(config(coco(tmp_path / 'gone', **keys)))


def test_paths_are_those_that_mmengine_joins(tmp_path):
    for dataset in (coco(tmp_path), voc(tmp_path), coco(tmp_path, ann_file='/abs.json')):
        built = DATASETS.build(dict(dataset, lazy_init=True))
        missing(config(dataset), built.ann_file)
        [folder] = built.data_prefix.values()
        missing(config(dict(dataset, ann_file='')), folder)


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda path: path.stem)
def test_the_configs_say_how_to_get_their_data(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(path, import_custom_modules=False)
    for split in ('train', 'val', 'test'):
        with pytest.raises(DataNotFoundError, match='get the data with `.+`'):
            check_data(cfg, (split,))
