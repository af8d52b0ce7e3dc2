"""What becomes of a config before it runs; that processes train together: test_processes.py."""

from contextlib import nullcontext

import pytest
from mmengine.config import Config
from mmengine.hooks import RuntimeInfoHook

from ssd_plugin.engine import launch
from tests.support.commands import ROOT


@pytest.fixture
def on(monkeypatch):
    """Does a step for a config as on a device; the backends of the process groups it makes."""

    def call(device, step, **config):
        backends, cfg = [], Config(config)
        monkeypatch.setattr(launch.dist, 'init_process_group', backends.append)
        monkeypatch.setattr(launch, 'get_device', lambda: device)
        step(cfg)
        return cfg, backends

    return call


def test_cpu_processes_use_gloo_and_ddp_without_devices(on):
    cfg, backends = on(
        'cpu', launch.join_cpu_processes, launcher='pytorch', find_unused_parameters=True,
        env_cfg=dict(cudnn_benchmark=True, dist_cfg=dict(backend='nccl')),
        model_wrapper_cfg=dict(type='Other', static_graph=True),
    )  # fmt: skip
    assert backends == ['gloo']
    assert cfg.env_cfg.to_dict() == dict(cudnn_benchmark=True, dist_cfg=dict(backend='gloo'))
    assert cfg.model_wrapper_cfg.to_dict() == dict(
        type='Other', static_graph=True, find_unused_parameters=True, broadcast_buffers=False,
        device_ids=None,
    )  # fmt: skip


@pytest.mark.parametrize('device, launcher', [('cpu', 'none'), ('cuda', 'pytorch')])
def test_mmengine_does_the_rest(on, device, launcher):
    config = dict(launcher=launcher, env_cfg=dict(dist_cfg=dict(backend='nccl')))
    cfg, backends = on(device, launch.join_cpu_processes, **config)
    assert backends == []
    assert cfg.to_dict() == config


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_launchers_that_need_a_gpu_say_so(on, launcher):
    with pytest.raises(ValueError, match=f'torchrun .*, not {launcher}'):
        on('cpu', launch.join_cpu_processes, launcher=launcher)


@pytest.mark.parametrize('device, pins', [('cpu', None), ('cuda', True)])
def test_batches_are_pinned_for_an_accelerator_unless_the_config_says(on, device, pins):
    loaders = dict(train_dataloader=dict(batch_size=2), val_dataloader=dict(pin_memory=False))
    cfg, _ = on(device, launch.fit_loaders, **loaders, test_dataloader=None)
    assert cfg.train_dataloader.get('pin_memory') is pins
    assert cfg.val_dataloader.pin_memory is False
    assert cfg.test_dataloader is None


def test_without_workers_none_persists(on):
    loader = dict(num_workers=0, persistent_workers=True)
    cfg, _ = on(
        'cpu',
        launch.fit_loaders,
        train_dataloader=loader,
        val_dataloader=dict(loader, num_workers=1),
    )
    assert cfg.train_dataloader.persistent_workers is False
    assert cfg.val_dataloader.persistent_workers is True


@pytest.mark.parametrize(
    ('device', 'preprocessor', 'head', 'fits'),
    [
        ('cuda', dict(type='SSDDataPreprocessor'), 'SSDMultiBoxHead', True),
        ('cuda', dict(type='SSDDataPreprocessor'), 'PISASSDMultiBoxHead', True),
        ('cuda', dict(type='SSDDataPreprocessor'), 'mmdet.SSDMultiBoxHead', True),
        ('cuda', dict(type='DetDataPreprocessor'), 'SSDHead', True),
        ('cuda', None, None, True),
        ('cpu', dict(type='SSDDataPreprocessor'), 'SSDHead', True),
        ('cuda', dict(type='SSDDataPreprocessor'), 'SSDHead', False),
        ('cuda', dict(type='SSDDataPreprocessor'), 'NoSuchHead', False),
        ('cuda', dict(type='SSDDataPreprocessor'), None, False),
    ],
)
def test_a_head_that_wants_its_annotations_elsewhere_is_refused(
    on, device, preprocessor, head, fits
):
    model = dict(data_preprocessor=preprocessor, **dict(bbox_head=dict(type=head)) if head else {})
    said = f'the head is {head}: set it to DetDataPreprocessor'
    with nullcontext() if fits else pytest.raises(ValueError, match=said):
        on(device, launch.check_preprocessor, model=model)


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
