"""Average precision: VOC's rule as a naive loop, class names, and COCO's metric on VOC's files."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.fileio import dump

from ssd_plugin.evaluation.pr import Rule, compute_curves, mean_ap
from tests.support.commands import ROOT
from tests.support.detections import (
    as_instances,
    evaluate,
    make_result,
    naive_ap,
    naive_voc_curve,
)
from tests.support.drawn_data import write_shapes

# ------------------------------------------------------------------------------ VOC's rule

# One class. Of five objects one is difficult; the best detection is right, then come another of
# the same object, one of the difficult object, one of nothing, and one that is right.
BY_HAND = [
    make_result(
        [([10, 10, 49, 49], 0, 0), ([100, 10, 139, 49], 0, 0), ([200, 10, 239, 49], 0, 1)],
        [([10, 10, 49, 47], 0, 0.9), ([12, 10, 49, 49], 0, 0.8), ([200, 12, 239, 49], 0, 0.7)],
    ),
    make_result(
        [([30, 30, 69, 69], 0, 0), ([130, 30, 169, 69], 0, 0)],
        [([80, 30, 119, 69], 0, 0.6), ([131, 31, 168, 68], 0, 0.5)],
    ),
]
# Ten rows of pixels and five of them: half of the object, or 9 x 4 of 9 x 9.
HALF = [make_result([([0, 0, 9, 9], 0, 0)], [([0, 0, 9, 4], 0, 0.9)])]


@pytest.mark.parametrize(
    'results, mode, legacy, expected',
    [
        # Precision is 1 at a recall of 1/4, and 2 of 4 at 1/2; the second half is never found.
        (BY_HAND, 'area', True, 1 / 4 * 1 + 1 / 4 * 2 / 4),
        (BY_HAND, '11points', True, (3 * 1 + 3 * 2 / 4) / 11),
        (HALF, 'area', True, 1),  # the last pixel is part of a box in VOC's files,
        (HALF, 'area', False, 0),  # and only there
    ],
)
def test_average_precision_of_cases_by_hand(results, mode, legacy, expected):
    result = evaluate(results, ('dog',), eval_mode=mode, use_legacy_coordinate=legacy)
    assert result['pascal_voc/AP/dog'] == result['pascal_voc/mAP'] == pytest.approx(expected)
    naive = naive_voc_curve(results, 0, extra=int(legacy))
    assert naive_ap(naive, mode == '11points') == pytest.approx(expected)


edge, label = st.integers(0, 12), st.integers(0, 2)
box = st.tuples(edge, edge, edge, edge).map(
    lambda v: [min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]) + 1, max(v[1], v[3]) + 1]
)
gts = st.lists(st.tuples(box, label, st.booleans()), max_size=4)
image = st.tuples(gts, st.lists(st.tuples(box, label), max_size=6))


@settings(deadline=None, max_examples=40)
@given(
    images=st.lists(image, min_size=1, max_size=3),
    order=st.randoms(use_true_random=False),
    rule=st.builds(
        Rule, st.sampled_from([0.5, 0.75]), st.sampled_from(['area', '11points']), st.booleans()
    ),
)
def test_precision_recall_and_their_averages_are_the_naive_loop_s(images, order, rule):
    total = sum(len(found) for _, found in images)
    scores = iter(order.sample(range(total), total))  # no two are equal
    results = [
        make_result(gts, [(*one, (1 + next(scores)) / 64) for one in found])
        for gts, found in images
    ]
    naive = {
        name: naive_voc_curve(results, number, int(rule.use_legacy_coordinate), rule.iou_thr)
        for number, name in enumerate('abc')
    }
    naive = {name: curve for name, curve in naive.items() if curve is not None}
    eleven_points = rule.eval_mode == '11points'
    aps = {f'pascal_voc/AP/{name}': naive_ap(c, eleven_points) for name, c in naive.items()}
    mean = sum(aps.values()) / len(aps) if aps else 0
    means = {'pascal_voc/mAP': mean, f'pascal_voc/AP{round(100 * rule.iou_thr)}': mean}

    options = dict(rule._asdict(), iou_thrs=rule.iou_thr)
    del options['iou_thr']
    result = evaluate(results, ('a', 'b', 'c'), **options)
    assert result == pytest.approx(means | aps, abs=1e-6)
    assert next(iter(result)) == 'pascal_voc/mAP'  # by which MMEngine saves the best checkpoint

    curves = compute_curves(results, ('a', 'b', 'c'), rule)  # what `show pr` draws
    assert [curve.name for curve in curves] == list(naive)  # of classes with ground truth
    for curve, expected, ap in zip(curves, naive.values(), aps.values()):
        shown = np.column_stack([curve.recall, curve.precision])
        assert shown == pytest.approx(np.array(expected).reshape(-1, 2), abs=1e-6)
        assert curve.ap == pytest.approx(ap, abs=1e-6)
        assert len(curve.scores) == len(expected) and (np.diff(curve.scores) <= 0).all()
    assert not curves or mean_ap(curves) == pytest.approx(mean, abs=1e-6)


def test_over_several_thresholds_a_class_has_its_mean():
    results = [make_result([([0, 0, 9, 9], 1, 0)], [([0, 0, 9, 6], 1, 0.9)])]  # overlap 0.7
    result = evaluate(results, ('dog', 'cat'), eval_mode='area', iou_thrs=[0.5, 0.6, 0.75])
    aps = dict(zip(('AP50', 'AP60', 'AP75'), (1, 1, 0)))
    aps |= {'mAP': 2 / 3, 'AP/cat': 2 / 3}
    assert result == pytest.approx({f'pascal_voc/{key}': ap for key, ap in aps.items()})


def test_recall_is_mmdetection_s():
    options = dict(metric='recall', proposal_nums=[1, 10], iou_thrs=[0.5])
    found = make_result([([0, 0, 9, 9], 0, 0)], [([0, 0, 9, 9], 0, 0.9)])
    result = evaluate([found], ('dog',), **options)
    assert result == {'pascal_voc/recall@1@0.5': 1, 'pascal_voc/recall@10@0.5': 1}


# ----------------------------------------------------------- whole data sets, as configs read them

NAMES = ('cat', 'dog', 'bird', 'fish', 'frog')


def write_voc(root, names=NAMES):
    """A VOC folder of three test images; the first object of the first one is difficult."""
    write_shapes(root, names, num_train=0, num_test=3)
    for path in (root / 'Annotations').glob('*.xml'):
        text = path.read_text().replace('<difficult>1<', '<difficult>0<')
        number = int(path.stem == '000001')  # how many are replaced
        path.write_text(text.replace('<difficult>0<', '<difficult>1<', number))


def dataset_of(cfg, root, classes=NAMES):
    """The evaluation data set of a config, in another folder."""
    changes = dict(data_root=str(root), metainfo=dict(classes=classes))
    return DATASETS.build(dict(cfg.val_dataloader.dataset, **changes))


def evaluate_on(dataset, evaluators, detect):
    """Results of evaluators on a data set, with the detections that `detect` makes of a sample."""
    evaluator = Evaluator(evaluators)
    evaluator.dataset_meta = dataset.metainfo
    for number in range(len(dataset)):
        sample = dataset[number]['data_samples']
        table = torch.tensor(detect(number, sample))
        sample.pred_instances = as_instances(table[:, :4], table[:, 4], scores=table[:, 5])
        evaluator.process([sample])
    return evaluator.evaluate(len(dataset))


def perfect(number, sample, field='gt_instances'):
    """Detections of all objects, and of nothing else."""
    truth = sample.get(field)
    boxes = getattr(truth.bboxes, 'tensor', truth.bboxes).tolist()
    return [
        [*box, label, 0.5 + 0.01 * i + 0.1 * number]
        for i, (box, label) in enumerate(zip(boxes, truth.labels.tolist()))
    ]


def with_more(rows):
    """Perfect detections, and some more in the first image."""
    return lambda number, sample: perfect(number, sample) + rows * (number == 0)


@pytest.mark.parametrize('names', [NAMES, tuple(f'kind {i}' for i in range(25))], ids=len)
def test_a_folder_named_voc2007_keeps_its_own_class_names(names, tmp_path, monkeypatch):
    """MMDetection's metric prints VOC's there, and has none beyond the twentieth."""
    log, printer = [], 'mmdet.evaluation.functional.mean_ap.print_log'
    monkeypatch.setattr(printer, lambda message, logger=None: log.append(message))
    write_voc(tmp_path / 'VOC2007', names)
    cfg = Config.fromfile(ROOT / 'configs/ssd300_voc.py')
    dataset = dataset_of(cfg, tmp_path, names)
    assert dataset.metainfo['dataset_type'] == 'VOC2007'
    result = evaluate_on(dataset, cfg.val_evaluator, perfect)
    table = [line.split('|')[1].strip() for line in log[-1].splitlines() if line[:1] == '|']
    assert table == ['class', *names, 'mAP']
    present = {names[i] for n in range(3) for i in dataset[n]['data_samples'].gt_instances.labels}
    assert {key[14:] for key in result if key.startswith('pascal_voc/AP/')} == present
    assert set(result.values()) == {1}


def test_two_years_are_evaluated_together(tmp_path):
    """Though MMDetection gives them unlike `dataset_type`s."""
    for year in ('VOC2007', 'VOC2012'):
        write_voc(tmp_path / year)
    cfg = Config.fromfile(ROOT / 'configs/ssd300_voc.py')
    year_2007 = cfg.val_dataloader.dataset
    year_2012 = dict(year_2007, ann_file='VOC2012/ImageSets/Main/test.txt')
    year_2012['data_prefix'] = dict(sub_data_root='VOC2012/')
    years = [
        dict(year, data_root=str(tmp_path), metainfo=dict(classes=NAMES))
        for year in (year_2007, year_2012)
    ]
    both = dict(type='ConcatDataset', ignore_keys=['dataset_type'], datasets=years)
    dataset = DATASETS.build(both)
    assert len(dataset) == 6
    assert evaluate_on(dataset, cfg.val_evaluator, perfect)['pascal_voc/mAP'] == 1


def recipe(heading, folder):
    """The config under a heading of docs/evaluation.md."""
    section = (ROOT / 'docs/evaluation.md').read_text().split(f'## {heading}\n')[1]
    code = re.search(r'```python\n(.*?)```', section, re.DOTALL)[1]
    path = folder / 'recipe.py'
    path.write_text(code.replace("'configs/", f"'{ROOT / 'configs'}/"))
    return Config.fromfile(path)


def test_the_first_recipe_is_the_base_config_s():
    code = (ROOT / 'docs/evaluation.md').read_text().split('```python\n')[1].split('```')[0]
    assert code in (ROOT / 'configs/_base_/datasets/voc0712.py').read_text()


def test_coco_s_metric_takes_voc_s_files(tmp_path):
    """Difficult objects need not be found; detections inside one are not counted.

    It gives the same figures as for the same objects in a file in COCO's format.
    """
    write_voc(tmp_path / 'VOC2007')
    cfg = recipe("COCO's average precision for VOC's files", tmp_path)
    dataset = dataset_of(cfg, tmp_path)
    ignored = perfect(3, dataset[0]['data_samples'], 'ignored_instances')
    assert len(ignored) == 1

    def results(extra):
        return evaluate_on(dataset, cfg.val_evaluator, with_more(extra))

    (*corner, x2, y2, label, score) = ignored[0]
    part = [*corner, x2, corner[1] + 0.3 * (y2 - corner[1]), label, score]  # 0.3 of it, inside
    for extra in ([], ignored, [part]):
        result = results(extra)
        assert result['coco/bbox_mAP'] == 1
        assert all(result[key] in (1, -1) for key in result if key.startswith('coco/'))
        assert (result['pascal_voc/mAP'] == 1) is (extra != [part])  # VOC is less lenient
    nothing = [[0, 0, 9, 9, label, 0.95]]
    assert results(nothing)['coco/bbox_mAP'] < 1

    def shifted(number, sample):  # by some pixels
        rng = torch.Generator().manual_seed(number)
        rows = torch.tensor(perfect(number, sample))
        rows[:, :4] += torch.randint(-9, 10, (len(rows), 4), generator=rng)
        return rows.tolist()

    ours = evaluate_on(dataset, cfg.val_evaluator, shifted)
    coco = write_coco(dataset, tmp_path / 'coco.json')
    images = dict(img=str(tmp_path / 'VOC2007/JPEGImages'))
    other = dict(type='CocoDataset', ann_file=str(coco), data_prefix=images, test_mode=True)
    other.update(metainfo=dict(classes=NAMES), pipeline=cfg.test_pipeline)
    theirs = evaluate_on(
        DATASETS.build(other), dict(type='CocoMetric', ann_file=str(coco)), shifted
    )
    assert 0.1 < theirs['coco/bbox_mAP'] < 0.9
    assert {key: ours[key] for key in theirs} == theirs


def write_coco(dataset, path):
    """The objects of a VOC data set in COCO's format; difficult ones as crowds."""
    images, annotations = [], []
    for number in range(len(dataset)):
        info = dataset.get_data_info(number)
        name = Path(info['img_path']).name
        images.append(dict(id=number, file_name=name, width=info['width'], height=info['height']))
        for instance in info['instances']:
            x1, y1, x2, y2 = instance['bbox']
            what = dict(category_id=instance['bbox_label'] + 1, iscrowd=instance['ignore_flag'])
            where = dict(bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1))
            annotations.append(dict(id=len(annotations) + 1, image_id=number, **what, **where))
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(dataset.metainfo['classes'])]
    dump(dict(images=images, annotations=annotations, categories=categories), path)
    return path


def test_voc_s_metric_takes_coco_s_files(tmp_path):
    """Crowds need not be found, and a detection of one counts neither way."""
    write_voc(tmp_path / 'VOC2007')
    voc = dataset_of(Config.fromfile(ROOT / 'configs/ssd300_voc.py'), tmp_path)
    (tmp_path / 'annotations').mkdir()
    write_coco(voc, tmp_path / 'annotations/instances_val2017.json')
    (tmp_path / 'val2017').symlink_to(tmp_path / 'VOC2007/JPEGImages')

    cfg = recipe("VOC's average precision for COCO's files", tmp_path)
    assert [evaluator.type for evaluator in cfg.val_evaluator] == ['CocoMetric', 'VOCDetMetric']
    dataset = dataset_of(cfg, tmp_path)
    crowds = perfect(3, dataset[0]['data_samples'], 'ignored_instances')
    assert len(crowds) == 1
    for extra in ([], crowds):
        result = evaluate_on(dataset, cfg.val_evaluator[1], with_more(extra))
        assert result['pascal_voc/mAP'] == 1
    missed = evaluate_on(dataset, cfg.val_evaluator[1], lambda n, s: perfect(n, s)[1:])
    assert 0 < missed['pascal_voc/mAP'] < 1
