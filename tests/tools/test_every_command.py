"""Every command with every config that names its data, in the layout that it reads.

Configs for data of one's own are in test_every_command_data_root.py, as all others are.
"""

import shutil

import pytest

from tests.support.commands import ROOT
from tests.support.config_rows import WITH_DATA, row_of, run_here
from tests.support.every_command import CELLS, COMMANDS, NOT_HERE, SHOWS, run_cell


@pytest.fixture(scope='module', params=WITH_DATA)
def row(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    yield row_of(request.param, folder)
    shutil.rmtree(folder)  # half a gigabyte of weights


@pytest.mark.parametrize('cell', CELLS)
def test_a_command_does_with_a_config_what_it_should(cell, row):
    run_cell(cell, row)


def test_every_command_is_in_the_table(tmp_path, capsys):
    commands = {path.stem for path in (ROOT / 'tools').glob('[a-z]*.py')}
    assert commands == {*COMMANDS, *NOT_HERE, 'show'}
    with pytest.raises(SystemExit):
        run_here(tmp_path, 'show', 'nothing')
    choices = capsys.readouterr().err.rpartition('choose from ')[2].strip(')\n').split(', ')
    assert {choice.strip("'") for choice in choices} == set(SHOWS)
