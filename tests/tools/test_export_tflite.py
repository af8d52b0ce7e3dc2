"""tools/export_tflite.py, and the commands that take its file."""

import importlib.util

import pytest

from tests.support.config_rows import metrics_in

INSTALLED = importlib.util.find_spec('litert_torch') is not None


@pytest.mark.skipif(not INSTALLED, reason='it pins packages: see tests/long/matrix.py')
def test_testing_and_detecting_take_it_in_place_of_the_checkpoint(run, tmp_path):
    path = tmp_path / 'demo.tflite'
    said = run('export_tflite', 'demo.py', 'weights.pth', path, '--images', 'image.jpg')
    assert f'{path}: images (1, 160, 160, 3) float32 -> boxes (1, 2136, 4) float32, ' in said
    assert 'LiteRT and PyTorch agree on 1 images' in said
    assert [*tmp_path.iterdir()] == [path]
    values = []
    for name, file in (('weights', 'weights.pth'), ('exported', path)):
        run('test', 'demo.py', file, '--work-dir', tmp_path / name)
        values.append(metrics_in(tmp_path / name)['pascal_voc/mAP'])
    assert values[1] == pytest.approx(values[0], abs=1e-3)
    assert '1 images, ' in run('detect', 'demo.py', path, 'image.jpg', '--out', tmp_path / 'out')


def test_without_its_converter_it_says_how_to_install_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(SystemExit, match='python -m venv litert && litert/bin/pip install') as said:
        run('export_tflite', 'demo.py', 'weights.pth', tmp_path / 'demo.tflite')
    assert '\n' not in said.value.code
