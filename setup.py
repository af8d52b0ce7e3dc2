"""Build and installation of ssd-plugin."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
EXPORT = ['onnx', 'onnxruntime']  # for tools/export_onnx.py
LITERT = ['litert-torch>=0.10']  # for tools/export_tflite.py, in an environment of its own
TIMM = ['timm>=1.0']  # for TimmBackbone
CAFFE = ['protobuf>=4.22']  # for weights of Caffe, by tools/convert_checkpoint.py
TEST = ['pytest', 'pytest-xdist', 'hypothesis', 'ruff', 'import-linter', 'mypy', 'mutmut']
DOCS = ['mkdocs<2', 'mkdocs-material', 'mkdocstrings[python]', 'latex2mathml']  # for `make docs`


class BuildWithConfigs(build_py):
    """Builds the package with its configs and tools inside, in `ssd_plugin/.mim`.

    There `mim` looks for them, and `ssd_plugin::NAME` in a config. An editable installation does
    without: it reads those of the source tree. The benchmark stays in the source tree: it is for
    those who change the package.
    """

    def run(self):
        super().run()
        if self.editable_mode:
            return
        mim = Path(self.build_lib) / 'ssd_plugin' / '.mim'
        shutil.rmtree(mim, ignore_errors=True)  # an earlier build may have left deleted files
        left_out = shutil.ignore_patterns('__pycache__', '_bench', 'benchmark.py')
        for folder in ('configs', 'tools'):
            shutil.copytree(ROOT / folder, mim / folder, ignore=left_out)
        shutil.copy(ROOT / 'model-index.yml', mim)


setup(
    name='ssd-plugin',
    version=re.search(r"'(.+)'", (ROOT / 'ssd_plugin/version.py').read_text()).group(1),
    description='SSD, the Single Shot MultiBox Detector, as a plugin for MMDetection 3.x',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    author='The ssd_plugin authors',
    license='Apache-2.0',
    packages=find_packages(include=['ssd_plugin', 'ssd_plugin.*']),
    package_data={'ssd_plugin': ['py.typed']},
    cmdclass={'build_py': BuildWithConfigs},
    zip_safe=False,
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.1',
        'torchvision',
        'mmengine>=0.10.4,<1',
        'mmdet>=3.2,<4',
        'numpy>=1.24',  # random.get_bit_generator
        'matplotlib',
        'opencv-python',
        'pillow',
        'rich',
        'scipy',
        # MMEngine 0.10 imports pkg_resources, which setuptools 82 dropped, and distutils, which
        # Python 3.12 dropped and setuptools provides.
        'setuptools<82',
    ],
    # mmcv and mmcv-lite install the same package: which one is the user's choice. mmcv is compiled
    # from source, which takes pip's --no-build-isolation and a Python before 3.13.
    extras_require={
        'lite': ['mmcv-lite>=2.0.0,<2.2.0'],
        'full': ['mmcv>=2.0.0,<2.2.0'],
        'export': EXPORT,
        'litert': LITERT,
        'timm': TIMM,
        'caffe': CAFFE,
        'tensorboard': ['tensorboard'],
        'docs': DOCS,
        # setuptools 70.1 builds wheels itself.
        'test': [*TEST, 'setuptools>=70.1', 'tensorboard', *EXPORT, *TIMM, *CAFFE, 'openvino'],
    },
)
