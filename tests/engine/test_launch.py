"""What becomes of a config before it runs; that processes train together: test_processes.py."""

import pytest
from mmengine.config import Config
from mmengine.hooks import RuntimeInfoHook

from ssd_plugin.engine import launch
from tests.support.commands import ROOT


@pytest.fixture
def joined(monkeypatch):
    """The backends of the process groups that are made, instead of making them."""
    backends = []
    monkeypatch.setattr(launch.dist, 'init_process_group', backends.append)
    return backends


def on_device(monkeypatch, device):
    monkeypatch.setattr(launch, 'get_device', lambda: device)


def test_cpu_processes_use_gloo_and_ddp_without_devices(monkeypatch, joined):
    on_device(monkeypatch, 'cpu')
    cfg = Config(dict(
        launcher='pytorch', find_unused_parameters=True,
        env_cfg=dict(cudnn_benchmark=True, dist_cfg=dict(backend='nccl')),
        model_wrapper_cfg=dict(type='Other', static_graph=True),
    ))  # fmt: skip
    launch.join_cpu_processes(cfg)
    assert joined == ['gloo']
    assert cfg.env_cfg.to_dict() == dict(cudnn_benchmark=True, dist_cfg=dict(backend='gloo'))
    assert cfg.model_wrapper_cfg.to_dict() == dict(
        type='Other', static_graph=True, find_unused_parameters=True, broadcast_buffers=False,
        device_ids=None,
    )  # fmt: skip


@pytest.mark.parametrize('device, launcher', [('cpu', 'none'), ('cuda', 'pytorch')])
def test_mmengine_does_the_rest(monkeypatch, joined, device, launcher):
    on_device(monkeypatch, device)
    cfg = Config(dict(launcher=launcher, env_cfg=dict(dist_cfg=dict(backend='nccl'))))
    launch.join_cpu_processes(cfg)
    assert joined == []
    assert cfg.env_cfg.dist_cfg.backend == 'nccl'
    assert 'model_wrapper_cfg' not in cfg


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_launchers_that_need_a_gpu_say_so(monkeypatch, joined, launcher):
    on_device(monkeypatch, 'cpu')
    with pytest.raises(ValueError, match=f'torchrun .*, not {launcher}'):
        launch.join_cpu_processes(Config(dict(launcher=launcher)))
    assert joined == []


@pytest.mark.parametrize('device, pins', [('cpu', None), ('cuda', True)])
def test_batches_are_pinned_for_an_accelerator_unless_the_config_says(monkeypatch, device, pins):
    on_device(monkeypatch, device)
    cfg = Config(dict(
        train_dataloader=dict(batch_size=2), val_dataloader=dict(pin_memory=False),
        test_dataloader=None,
    ))  # fmt: skip
    launch.pin_batches(cfg)
    assert cfg.train_dataloader.get('pin_memory') is pins
    assert cfg.val_dataloader.pin_memory is False
    assert cfg.test_dataloader is None


@pytest.mark.parametrize(
    ('device', 'preprocessor', 'head', 'fits'),
    [
        ('cuda', 'SSDDataPreprocessor', 'SSDMultiBoxHead', True),
        ('cuda', 'SSDDataPreprocessor', 'mmdet.SSDMultiBoxHead', True),
        ('cuda', 'DetDataPreprocessor', 'SSDHead', True),
        ('cpu', 'SSDDataPreprocessor', 'SSDHead', True),
        ('cuda', 'SSDDataPreprocessor', 'SSDHead', False),
        ('cuda', 'SSDDataPreprocessor', 'NoSuchHead', False),
    ],
)
def test_a_head_that_wants_its_annotations_elsewhere_is_refused(
    monkeypatch, device, preprocessor, head, fits
):
    on_device(monkeypatch, device)
    model = dict(data_preprocessor=dict(type=preprocessor), bbox_head=dict(type=head))
    if fits:
        launch.check_preprocessor(Config(dict(model=model)))
    else:
        with pytest.raises(ValueError, match=f'the head is {head}: set it to DetDataPreprocessor'):
            launch.check_preprocessor(Config(dict(model=model)))


def test_a_model_without_such_a_head_is_refused(monkeypatch):
    on_device(monkeypatch, 'cuda')
    cfg = Config(dict(model=dict(data_preprocessor=dict(type='SSDDataPreprocessor'))))
    with pytest.raises(ValueError, match='the head is None'):
        launch.check_preprocessor(cfg)
    cfg.model.data_preprocessor = None
    launch.check_preprocessor(cfg)


@pytest.mark.parametrize('runner_type', ['ResumableRunner', 'Runner', None])
def test_a_config_names_its_runner_and_gets_a_resumable_one_otherwise(runner_type, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/demo_shapes.py')
    assert cfg.pop('runner_type') == 'ResumableRunner'
    if runner_type:
        cfg.runner_type = runner_type
    cfg.update(work_dir=str(tmp_path), experiment_name=f'{tmp_path.name}_{runner_type}')
    runner = launch.build_runner(cfg)
    assert type(runner).__name__ == (runner_type or 'ResumableRunner')
    defers = any(type(hook).__name__ == 'DeferredRuntimeInfoHook' for hook in runner.hooks)
    assert defers is (runner_type != 'Runner')
    assert sum(isinstance(hook, RuntimeInfoHook) for hook in runner.hooks) == 1
