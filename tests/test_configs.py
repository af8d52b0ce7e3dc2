"""Every config's priors and hooks, the recipes of VOC, and the configs of README and docs."""

import math
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from mmdet import registry as registries
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from tests.support.drawn_data import write_coco, write_data, write_shapes
from tests.support.weights import TRAINED

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))
LITE = 6 * (20**2 + 10**2 + 5**2 + 3**2 + 2**2 + 1)
OWN_LITE = 4 * 40**2 + 6 * (20**2 + 10**2 + 5**2 + 3**2 + 2**2)
FPN_LITE = 4 * 40**2 + 6 * (20**2 + 10**2 + 5**2 + 3**2)
NUM_PRIORS = dict.fromkeys(
    (
        'ssd300_voc', 'ssd300_coco', 'ssd300_torchvision_coco', 'ssd300_ssdpytorch_voc',
        'ssd300_r50_voc', 'ssd300_r50_coco', 'ssd300_efficientnetb0_voc', 'ssd300_swint_voc',
        'ssd300_vgg16', 'ssd300_pisa_coco',
        'ssd300_caffe_voc', 'ssd300_caffe_coco', 'ssd300_lufficc_voc', 'ssd300_lufficc_coco',
    ), 8732,
) | dict(
    ssd512_voc=24564,
    ssd512_coco=24564,
    ssd512_caffe_voc=24564,
    ssd512_caffe_coco=24564,
    ssd512_lufficc_voc=24564,
    ssd512_lufficc_coco=24564,
    ssd512_r50=24564,
    ssd512_pisa_coco=24564,
    ssd512x288_r18_voc=4 * 64 * 36 + 6 * (32 * 18 + 16 * 9 + 8 * 5) + 4 * 4 * 3,
    ssdlite320_mobilenetv2_coco=LITE,
    ssdlite320_mobilenetv3_coco=LITE,
    ssdlite320_efficientnetlite0=OWN_LITE,
    ssdlite320_mobilenetv1=OWN_LITE,
    ssdlite320_mobilenetv2=OWN_LITE,
    ssdlite320_mobilenetv3=OWN_LITE,
    ssd_fpnlite320_efficientnetlite0=FPN_LITE,
    ssd_fpnlite320_mobilenetv2=FPN_LITE,
    ssd_fpnlite640_mobilenetv2=4 * 80**2 + 6 * (40**2 + 20**2 + 10**2 + 5**2),
    ssd320_convnextt_voc=4 * 40**2 + 6 * (20**2 + 10**2 + 5**2) + 4 * (3**2 + 1),
    retinanet_r50_hnm_voc=9 * (38**2 + 19**2 + 10**2 + 5**2 + 3**2),
    demo_shapes=4 * (20**2 + 10**2 + 5**2 + 3**2),
)  # fmt: skip
YOUR_DATA = 'docs/your_data.md'


def load(name: str) -> Config:
    """The config, without the weights that its backbone starts from."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.model.backbone.init_cfg = None
    for key in TRAINED.values():
        cfg.model.backbone.pop(key, None)
    return cfg


def two_steps(cfg: Config, work_dir: Path) -> Config:
    """The recipe, cut to two iterations and one evaluation."""
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=0)  # by chance augmentation may leave no object: the loss is 0
    # Batch normalisation can't do with one image, VGG-16 takes seconds for each.
    batch_size = 1 if cfg.model.backbone.type == 'SSDVGG' else 2
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(batch_size=batch_size, num_workers=0, persistent_workers=False)
    if cfg.train_cfg.type == 'IterBasedTrainLoop':
        cfg.train_cfg.update(max_iters=2, val_interval=2)
    else:
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
        # An epoch of the data that `write_data` makes.
        cfg.train_dataloader.dataset.indices = 2 * batch_size
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.indices = 1  # one image is an evaluation, and the large models are slow
    # Two steps teach nothing; without detections CocoMetric has nothing to tell.
    cfg.model.test_cfg.score_thr = 0
    cfg.default_hooks.logger.interval = 1
    cfg.experiment_name = work_dir.name
    return cfg


every_config = pytest.mark.parametrize('name', NAMES)


def test_every_config_has_its_number_of_priors_here():
    assert set(NAMES) == set(NUM_PRIORS)


@every_config
def test_config_has_the_priors_of_its_model_and_the_hook_of_its_normalisation(name):
    cfg = load(name)
    resize = next(t for t in cfg.test_pipeline if t.type == 'Resize')
    with torch.device('meta'), torch.no_grad():  # shapes without numbers
        model = MODELS.build(cfg.model).to('meta').train()
        cls_scores, _ = model.bbox_head(model.extract_feat(torch.zeros(2, 3, *resize.scale[::-1])))
    sizes = [scores.shape[-2:] for scores in cls_scores]
    generator = TASK_UTILS.build(cfg.model.bbox_head.anchor_generator)
    priors = generator.grid_priors(sizes, device='cpu')
    assert sum(map(len, priors)) == NUM_PRIORS[name]
    averages = any(isinstance(m, nn.BatchNorm2d) and m.training for m in model.modules())
    assert averages == (dict(type='NormStatsHook') in cfg.custom_hooks)


@every_config
def test_the_first_loss_is_that_of_uniform_scores(name):
    cfg = load(name)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    width, height = next(t for t in cfg.test_pipeline if t.type == 'Resize').scale
    # Batch normalisation can't do with one image, VGG-16 takes seconds for each.
    num = 1 if cfg.model.backbone.type == 'SSDVGG' else 2
    inputs = demo_mm_inputs(num, [[3, height, width]] * num, num_items=[3] * num, num_classes=2)
    batch = model.data_preprocessor(inputs, True)
    with torch.no_grad():
        losses = model.train().loss(batch['inputs'], batch['data_samples'])
    found = losses['loss_cls']
    found = sum(found) if isinstance(found, list) else found  # RetinaNet's has levels
    settings = cfg.model.bbox_head
    # Of each positive and its mined negatives, with a score of background.
    expected = (1 + settings.get('loss_cls', {}).get('neg_pos_ratio', 3)) * math.log(
        settings.num_classes + 1
    )
    assert found.item() == pytest.approx(expected, rel=0.05)


@every_config
def test_config_can_be_resumed_after_a_kill_at_any_time(name):
    cfg = load(name)
    assert cfg.runner_type == 'ResumableRunner'
    # MMEngine removes an old checkpoint before it writes the new one.
    assert cfg.default_hooks.checkpoint.max_keep_ckpts >= 2


def test_images_are_normalised_as_the_weights_of_the_backbone_ask_for():
    init_default_scope('mmdet')
    models = {name: Config.fromfile(CONFIGS / f'{name}.py').model for name in NAMES}
    trained = {
        n: m for n, m in models.items() if any(m.backbone.get(key) for key in TRAINED.values())
    }
    assert trained
    for name, model in trained.items():
        wanted = MODELS.build(model.backbone).preprocessing
        assert {key: model.data_preprocessor[key] for key in wanted} == wanted, name


def test_voc_recipe_is_the_paper_s():
    cfg = load('ssd300_voc')
    assert cfg.train_dataloader.batch_size == 32
    assert cfg.train_cfg.max_iters == 120000
    assert cfg.param_scheduler[1].milestones == [80000, 100000]
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=1e-3, momentum=0.9, weight_decay=5e-4)


def test_voc_recipe_is_mmdetection_s_plus_what_ssd_needs():
    roots = [value for value in vars(registries).values() if isinstance(value, registries.Registry)]
    known = {name: item for root in roots for name, item in root.module_dict.items()}
    ours = {name for name, item in known.items() if item.__module__.startswith('ssd_plugin.')}

    def names(value):
        if isinstance(value, dict):
            value = value.values()
        elif isinstance(value, str):
            return {value} & ours
        return set().union(*map(names, value)) if isinstance(value, Iterable) else set()

    found = names(load('ssd300_voc').to_dict())
    assert {'SSDMultiBoxHead', 'SSDAugment', 'ResumableRunner'} <= found
    assert len(found) <= 15, sorted(found)


def test_biases_learn_twice_as_fast_and_do_not_decay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = two_steps(load('ssd300_voc'), tmp_path / 'biases')
    runner = Runner.from_cfg(cfg)
    wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    assert len(wrapper.optimizer.param_groups) == 2
    settings = {id(p): group for group in wrapper.optimizer.param_groups for p in group['params']}
    for name, parameter in runner.model.named_parameters():
        group = settings[id(parameter)]
        expected = (2e-3, 0) if name.endswith('.bias') else (1e-3, 5e-4)
        assert (group['lr'], group['weight_decay']) == pytest.approx(expected), name


def test_difficult_objects_are_trained_on_and_ignored_in_evaluation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = two_steps(load('demo_shapes'), tmp_path / 'difficult')
    write_data(cfg, tmp_path)
    for path in Path(cfg.data_root, 'Annotations').glob('*.xml'):
        path.write_text(path.read_text().replace('<difficult>0<', '<difficult>1<'))
    for loader, trained_on in ((cfg.train_dataloader, True), (cfg.val_dataloader, False)):
        for sample in Runner.build_dataloader(loader).dataset:
            sample = sample['data_samples']
            assert bool(len(sample.gt_instances)) is trained_on
            assert bool(len(sample.ignored_instances)) is not trained_on


def recipe(heading: str, folder: Path, page: str = 'README.md') -> Config:
    """The config under a heading of a page, saved at the root of the clone as that asks."""
    section = (CONFIGS.parent / page).read_text().split(f'### {heading}\n')[1]
    code = section.split('```python\n')[1].split('```')[0]
    path = folder / 'recipe.py'
    path.write_text(code.replace("'configs/", f"'{CONFIGS}/"))
    cfg = Config.fromfile(path)
    cfg.model.backbone.init_cfg = None
    return cfg


def test_voc_folders_and_coco_jsons_train_by_config_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    voc = two_steps(recipe('A VOC folder', tmp_path, YOUR_DATA), tmp_path / 'my_voc')
    root = tmp_path / voc.val_dataloader.dataset.data_root
    write_shapes(root, ('cat', 'dog', 'cat', 'dog', 'cat'), num_train=10)
    Runner.from_cfg(voc).train()

    coco = two_steps(recipe('A COCO json', tmp_path, YOUR_DATA), tmp_path / 'my_coco')
    write_coco(root, ('cat', 'dog'))
    (root / 'images').symlink_to(root / 'train2017')
    (root / 'annotations/instances_train2017.json').rename(root / 'train.json')
    (root / 'annotations/instances_val2017.json').rename(root / 'val.json')
    runner = Runner.from_cfg(coco)
    runner.train()
    assert runner.message_hub.get_scalar('val/coco/bbox_mAP').current() >= 0


def test_readme_s_other_backbone_has_the_same_priors(tmp_path):
    init_default_scope('mmdet')
    model = MODELS.build(recipe('Another backbone', tmp_path).model).eval()
    with torch.no_grad():
        cls_scores, _ = model(torch.zeros(1, 3, 300, 300), mode='tensor')
    assert len(model.bbox_head.get_priors(cls_scores)) == 8732


def test_readme_s_loss_and_assigner_train_inside_retinanet(tmp_path):
    init_default_scope('mmdet')
    model = MODELS.build(recipe('The loss in another head', tmp_path).model)
    inputs = demo_mm_inputs(2, [[3, 128, 128], [3, 96, 128]], num_items=[2, 0], num_classes=80)
    batch = model.data_preprocessor(inputs, True)
    losses = model.loss(batch['inputs'], batch['data_samples'])
    total = sum(sum(losses[key]) for key in ('loss_cls', 'loss_bbox'))
    total.backward()
    assert 0 < total < torch.inf
    assert all(p.grad.isfinite().all() for p in model.bbox_head.parameters())
    model.eval()
    with torch.no_grad():
        results = model.predict(batch['inputs'], batch['data_samples'])
    assert all((result.pred_instances.scores <= 1).all() for result in results)
