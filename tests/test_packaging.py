"""What is in the built package, and that it works where it is installed."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def run(*command, cwd, **environment):
    """The output of a command, whose own words are shown if it fails."""
    environment = {**os.environ, **environment}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind, source, target):
    """Build an sdist or a wheel with the setuptools that is here, and answer its path."""
    script = f"from setuptools import build_meta; build_meta.build_{kind}('{target}')"
    run(sys.executable, '-c', script, cwd=source)
    (archive,) = target.iterdir()
    return archive


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The wheel, built from the sdist and unpacked as an installer would; the folder it is in."""
    tmp = tmp_path_factory.mktemp('package')
    hidden = ['.*', '*.egg-info', '__pycache__', 'build', 'data', 'work_dirs']
    shutil.copytree(ROOT, tmp / 'tree', ignore=shutil.ignore_patterns(*hidden))
    for folder in ('sdist', 'source', 'wheel', 'site'):
        (tmp / folder).mkdir()
    sdist = build('sdist', tmp / 'tree', tmp / 'sdist')
    run(sys.executable, '-m', 'tarfile', '--extract', str(sdist), 'source', cwd=tmp)
    (source,) = (tmp / 'source').iterdir()
    with zipfile.ZipFile(build('wheel', source, tmp / 'wheel')) as archive:
        archive.extractall(tmp / 'site')
    return tmp / 'site'


@pytest.fixture(scope='module')
def metadata(installed):
    return PathDistribution(next(installed.glob('*.dist-info'))).metadata


def files_of(folder, *patterns):
    found = [file for pattern in patterns for file in folder.rglob(pattern)]
    return {file.relative_to(folder) for file in found}


def test_wheel_carries_configs_and_tools(installed):
    mim = installed / 'ssd_plugin' / '.mim'
    assert (mim / 'model-index.yml').is_file()
    for folder in ('configs', 'tools'):
        files = files_of(ROOT / folder, '*.py', '*.yml', '*.sh')
        assert files and files_of(mim / folder, '*') >= files
    assert not list(installed.rglob('__pycache__'))


def test_wheel_installs_nothing_but_the_package(installed):
    assert {path.name for path in installed.iterdir() if path.suffix != '.dist-info'} == {
        'ssd_plugin'
    }


def test_model_index_leads_to_the_configs(installed):
    mim = installed / 'ssd_plugin' / '.mim'
    index = yaml.safe_load((mim / 'model-index.yml').read_text())
    models = []
    for metafile in index['Import']:
        models += yaml.safe_load((mim / metafile).read_text())['Models']
    # All but those on data sets of their own.
    names = {path.stem for path in (ROOT / 'configs').glob('*.py')}
    names -= {'demo_shapes', 'ssd300_bccd', 'ssd300_bccd_short'}
    assert {model['Name'] for model in models} == names
    for model in models:
        assert (mim / model['Config']).is_file()
        assert Path(model['Config']).stem == model['Name']


def test_neither_mmcv_is_required(metadata):
    requirements = [Requirement(line) for line in metadata.get_all('Requires-Dist')]
    required = {item.name for item in requirements if 'extra' not in str(item.marker)}
    assert {'torch', 'torchvision', 'mmengine', 'mmdet'} <= required
    assert not {name for name in required if name.startswith('mmcv')}
    extras = {item.name: str(item.marker) for item in requirements if item.name not in required}
    assert extras['mmcv-lite'] == 'extra == "lite"'
    assert extras['mmcv'] == 'extra == "full"'


def test_every_requirement_of_the_commands_is_pinned(metadata):
    pins = [line for line in (ROOT / 'constraints.txt').read_text().splitlines() if line[:1] != '#']
    pins = [pin for pin in map(Requirement, pins) if not pin.marker or pin.marker.evaluate()]
    versions = {pin.name: str(pin.specifier).removeprefix('==') for pin in pins}
    assert len(versions) == len(pins)
    for requirement in map(Requirement, metadata.get_all('Requires-Dist')):
        if 'full' not in str(requirement.marker):
            assert requirement.specifier.contains(versions[requirement.name]), requirement


def test_version_is_that_of_the_module(metadata):
    namespace = {}
    exec((ROOT / 'ssd_plugin' / 'version.py').read_text(), namespace)
    assert metadata['Version'] == namespace['__version__']


def test_installed_configs_have_names(installed, tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'ssd_plugin::ssd300_voc.py'")
    script = """
from mmengine.config import Config
from mmengine.hub import get_config
import ssd_plugin
print(get_config('ssd_plugin::ssd300_voc.py').filename)
print(Config.fromfile('mine.py').model.bbox_head.type)
"""
    output = run(sys.executable, '-c', script, cwd=tmp_path, PYTHONPATH=str(installed))
    filename, head = output.splitlines()[-2:]
    assert filename == str(installed / 'ssd_plugin' / '.mim' / 'configs' / 'ssd300_voc.py')
    assert head == 'SSDMultiBoxHead'


def test_installed_tools_train_as_mim_has_them_train(installed, tmp_path):
    """`mim train ssd_plugin demo_shapes.py`, after `mim run ssd_plugin prepare_data shapes ...`."""
    mim = installed / 'ssd_plugin' / '.mim'
    tools = {path.stem: str(path) for path in (mim / 'tools').glob('*.py')}
    sizes = ['--train', '4', '--test', '2']
    start = [sys.executable, tools['prepare_data'], 'shapes', 'data/shapes', *sizes]
    run(*start, cwd=tmp_path, PYTHONPATH=str(installed))
    quick = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=2']
    config = str(mim / 'configs' / 'demo_shapes.py')
    start = [sys.executable, tools['train'], config, '--launcher', 'none', '--cfg-options', *quick]
    run(*start, cwd=tmp_path, PYTHONPATH=str(installed))
    assert (tmp_path / 'work_dirs' / 'demo_shapes' / 'epoch_1.pth').is_file()


def test_the_package_says_that_it_has_types(installed):
    assert (installed / 'ssd_plugin' / 'py.typed').is_file()
