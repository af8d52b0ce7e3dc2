"""What else the plugin does so that MMDetection works; that it does no more."""

import pkgutil
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.utils.dl_utils import mmcv_full_available

from ssd_plugin import compat
from ssd_plugin.compat.mmcv_ops import StandInOps
from tests.support.commands import ROOT


def test_applying_again_does_nothing():
    before = sys.modules['mmcv._ext'], Config._get_cfg_path, pkgutil.find_loader
    compat.apply()
    assert before == (sys.modules['mmcv._ext'], Config._get_cfg_path, pkgutil.find_loader)


def test_find_loader_is_given_back_where_python_has_none(monkeypatch):
    monkeypatch.delattr(pkgutil, 'find_loader', raising=False)
    monkeypatch.setitem(sys.modules, 'mmcv._ext', StandInOps('install it'))
    compat.restore_find_loader()
    assert not mmcv_full_available()
    assert pkgutil.find_loader('json') is not None
    assert pkgutil.find_loader('no_such_module') is None


def test_opencv_without_its_libraries_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)
    with pytest.raises(ImportError, match='pip install opencv-python-headless') as caught:
        compat.explain_opencv_without_display()
    assert '\n' not in str(caught.value)


# --- names of configs ----------------------------------------------------------------------------


def test_our_configs_have_names():
    file = Path(get_config('ssd_plugin::ssd300_voc.py').filename)
    assert file.samefile(ROOT / 'configs' / 'ssd300_voc.py')


def test_a_config_inherits_from_ours_by_name(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'ssd_plugin::ssd300_voc.py'\nmodel = dict(a=1)")
    model = Config.fromfile(tmp_path / 'mine.py').model
    assert model.bbox_head.type == 'SSDMultiBoxHead'
    assert model._scope_ == 'mmdet'  # the registry that has our components
    assert model.a == 1


def test_an_unknown_config_of_ours_is_answered_with_the_known_ones():
    with pytest.raises(FileNotFoundError, match="'ssd3.py'.*ssd300_voc.py"):
        get_config('ssd_plugin::ssd3.py')


def test_names_of_other_packages_configs_are_left_to_mmengine(tmp_path):
    assert get_config('mmdet::ssd/ssd300_coco.py').model.bbox_head.type == 'SSDHead'
    (tmp_path / 'mine.py').write_text("_base_ = 'mmdet::ssd/ssd300_coco.py'")
    assert Config.fromfile(tmp_path / 'mine.py').model.bbox_head.type == 'SSDHead'
