"""What the built package contains, and that it works where it is installed."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution

import pytest
import yaml
from packaging.requirements import Requirement

from ssd_plugin.version import __version__
from tests.support.commands import ROOT


def run(*command, cwd, **environment):
    """The output of a command, which is shown if it fails."""
    environment = {**os.environ, **environment}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind, source, target):
    """Build an sdist or a wheel with the installed setuptools; its path."""
    target.mkdir()
    script = f"from setuptools import build_meta; build_meta.build_{kind}('{target}')"
    run(sys.executable, '-c', script, cwd=source)
    (archive,) = target.iterdir()
    return archive


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """The folder in which the wheel, built from the sdist, has been installed."""
    tmp = tmp_path_factory.mktemp('package')
    hidden = ['.*', '*.egg-info', '__pycache__', 'build', 'data', 'work_dirs']
    shutil.copytree(ROOT, tmp / 'tree', ignore=shutil.ignore_patterns(*hidden))
    shutil.unpack_archive(build('sdist', tmp / 'tree', tmp / 'sdist'), tmp)
    (source,) = tmp.glob('ssd_plugin-*')
    with zipfile.ZipFile(build('wheel', source, tmp / 'wheel')) as archive:
        archive.extractall(tmp / 'site')
    return tmp / 'site'


@pytest.fixture
def mim(site):
    """The folder in which `mim` looks for configs and tools."""
    return site / 'ssd_plugin' / '.mim'


@pytest.fixture
def requirements(site):
    """What the package requires, by its metadata, which are of this version."""
    metadata = PathDistribution(next(site.glob('*.dist-info'))).metadata
    assert metadata['Version'] == __version__
    return [Requirement(line) for line in metadata.get_all('Requires-Dist')]


def files_of(folder, *patterns):
    """Paths below a folder, but for compiled modules and the benchmark."""
    found = {path.relative_to(folder) for pattern in patterns for path in folder.rglob(pattern)}
    return {p for p in found if not {'__pycache__', '_bench', 'benchmark.py'} & set(p.parts)}


def test_the_wheel_installs_the_package_alone_and_all_of_it(site):
    assert {path.name for path in site.iterdir() if path.suffix != '.dist-info'} == {'ssd_plugin'}
    modules = files_of(ROOT / 'ssd_plugin', '*.py', 'py.typed')
    assert {path.name for path in modules} >= {'__main__.py', 'py.typed'}
    installed = files_of(site / 'ssd_plugin', '*.py', 'py.typed')
    assert {path for path in installed if path.parts[0] != '.mim'} == modules
    assert not list(site.rglob('__pycache__'))


def test_the_wheel_carries_configs_and_tools_but_for_the_benchmark(mim):
    assert (mim / 'model-index.yml').is_file()
    for folder in ('configs', 'tools'):
        files = files_of(ROOT / folder, '*.py', '*.yml', '*.sh')
        installed = {p.relative_to(mim / folder) for p in (mim / folder).rglob('*.*')}
        assert files and installed == files


def test_model_index_leads_to_the_configs(mim):
    metafiles = yaml.safe_load((mim / 'model-index.yml').read_text())['Import']
    models = [m for f in metafiles for m in yaml.safe_load((mim / f).read_text())['Models']]
    configs = {path.stem: path for path in (mim / 'configs').glob('*.py')}
    del configs['demo_shapes']  # on drawn data
    assert {model['Name']: mim / model['Config'] for model in models} == configs


def test_neither_mmcv_is_required(requirements):
    required = {item.name for item in requirements if 'extra' not in str(item.marker)}
    assert {'torch', 'torchvision', 'mmengine', 'mmdet'} <= required
    assert not {name for name in required if name.startswith('mmcv')}
    extras = {item.name: str(item.marker) for item in requirements if item.name not in required}
    assert extras['mmcv-lite'] == 'extra == "lite"'
    assert extras['mmcv'] == 'extra == "full"'


def test_every_requirement_of_the_commands_is_pinned(requirements):
    pins = [line for line in (ROOT / 'constraints.txt').read_text().splitlines() if line[:1] != '#']
    pins = [pin for pin in map(Requirement, pins) if not pin.marker or pin.marker.evaluate()]
    versions = {pin.name: str(pin.specifier).removeprefix('==') for pin in pins}
    assert len(versions) == len(pins)
    for requirement in requirements:
        # mmcv is compiled, and litert-torch has an environment of its own.
        if not any(extra in str(requirement.marker) for extra in ('full', 'litert')):
            assert requirement.specifier.contains(versions[requirement.name]), requirement


def test_installed_configs_have_names(site, mim, tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'ssd_plugin::ssd300_voc.py'")
    script = (
        'import ssd_plugin, mmengine.hub as hub; from mmengine.config import Config; '
        "print(hub.get_config('ssd_plugin::ssd300_voc.py').filename); "
        "print(Config.fromfile('mine.py').model.bbox_head.type)"
    )
    output = run(sys.executable, '-c', script, cwd=tmp_path, PYTHONPATH=str(site))
    assert output.splitlines()[-2:] == [str(mim / 'configs/ssd300_voc.py'), 'SSDMultiBoxHead']


def test_installed_tools_train_as_mim_has_them_train(site, mim, tmp_path):
    """`mim train ssd_plugin demo_shapes.py`, after `mim run ssd_plugin prepare_data shapes ...`."""
    shapes = ['shapes', 'data/shapes', '--train', '4', '--test', '2']
    quick = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=2']
    config = [str(mim / 'configs' / 'demo_shapes.py'), '--launcher', 'none']
    train = [*config, '--cfg-options', *quick]
    for tool, arguments in dict(prepare_data=shapes, train=train).items():
        start = [sys.executable, str(mim / 'tools' / f'{tool}.py'), *arguments]
        run(*start, cwd=tmp_path, PYTHONPATH=str(site))
    assert (tmp_path / 'work_dirs' / 'demo_shapes' / 'epoch_1.pth').is_file()
