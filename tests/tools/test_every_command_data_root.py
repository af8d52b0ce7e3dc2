"""Every command with the config that training by each config on one's own folder writes."""

import shutil

import pytest

from tests.support.config_rows import NAMES, data_root_row_of
from tests.support.every_command import CELLS, run_cell


@pytest.fixture(scope='module', params=NAMES)
def row(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    yield data_root_row_of(request.param, folder)
    shutil.rmtree(folder)  # half a gigabyte of weights


@pytest.mark.parametrize('cell', CELLS)
def test_a_command_does_with_a_fitted_config_what_it_should(cell, row):
    run_cell(cell, row)
