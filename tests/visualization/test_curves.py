"""Logs of training runs, read and drawn."""

import pytest

from ssd_plugin.errors import InputError
from ssd_plugin.visualization.curves import draw_curves, read_log, read_work_dir
from tests.support.logs import train, val, write_log


def test_evaluations_stand_at_the_iteration_before_them(tmp_path):
    entries = [train(10, 5.0), train(20, 4.0), val(1, 0.2), train(30, 3.5), val(2, 0.4)]
    series = read_log(write_log(tmp_path, '1', entries))
    assert series['loss'] == [(10, 5.0), (20, 4.0), (30, 3.5)]
    assert series['pascal_voc/mAP'] == [(20, 0.2), (30, 0.4)]


def test_a_resumed_run_goes_on_where_it_began_and_tests_do_not_count(tmp_path):
    write_log(tmp_path, '1', [train(10, 5.0), train(20, 4.0), val(1, 0.2), train(30, 9.0)])
    write_log(tmp_path, '2', [val(0, 0.9)])
    write_log(tmp_path, '3', [train(25, 3.0), train(35, 2.5), val(2, 0.5)])
    series = read_work_dir(tmp_path)
    assert series['loss'] == [(10, 5.0), (20, 4.0), (25, 3.0), (35, 2.5)]
    assert series['pascal_voc/mAP'] == [(20, 0.2), (35, 0.5)]


@pytest.mark.parametrize('evaluated_before', [True, False])
def test_an_evaluation_made_again_on_resumption_stands_where_it_was_due(tmp_path, evaluated_before):
    """A killed run may have trained an epoch, and be killed in its evaluation or after it."""
    first = [train(10, 5.0), train(20, 4.0), *([val(1, 0.2)] if evaluated_before else [])]
    write_log(tmp_path, '1', [*first, train(30, 9.0)])
    write_log(tmp_path, '2', [val(1, 0.3), train(25, 3.0), val(2, 0.5)])
    series = read_work_dir(tmp_path)
    assert series['pascal_voc/mAP'] == [(20, 0.3), (25, 0.5)]
    assert series['loss'] == [(10, 5.0), (20, 4.0), (25, 3.0)]


def test_a_new_start_replaces_the_run_before(tmp_path):
    write_log(tmp_path, '1', [train(10, 5.0), train(20, 4.0), val(1, 0.2)])
    write_log(tmp_path, '2', [train(10, 6.0)])
    series = read_work_dir(tmp_path)
    assert series['loss'] == [(10, 6.0)]
    assert series['pascal_voc/mAP'] == []


def test_where_nothing_was_trained_it_says_so(tmp_path):
    write_log(tmp_path, '1', [val(0, 0.5)])
    with pytest.raises(InputError, match='no training'):
        read_work_dir(tmp_path)


def test_a_line_for_each_run_and_series(tmp_path):
    write_log(tmp_path / 'a', '1', [train(10, 5.0), train(20, 4.0), val(1, 0.2)])
    write_log(tmp_path / 'b', '1', [train(10, 6.0), train(20, 3.0)])
    runs = {name: read_work_dir(tmp_path / name) for name in 'ab'}
    loss, precision, rate = draw_curves(runs, 'Training').axes
    first = [line.get_ydata()[0] for line in loss.lines]
    assert first == pytest.approx([5, 3.5, 1.5, 6, 4.2, 1.8])
    assert [list(line.get_xydata()[0]) for line in precision.lines] == [[20, 0.2]]
    assert len(rate.lines) == 2
    colors = {line.get_color() for line in loss.lines}
    assert len(colors) == 2
    names = [text.get_text() for text in loss.get_legend().get_texts()]
    assert names == ['loss', 'loss_cls', 'loss_bbox']


def test_the_learning_rate_is_the_config_s_where_the_first_parameters_have_a_share_of_it(tmp_path):
    write_log(tmp_path / 'a', '1', [train(10, 5.0, lr=0.02) | dict(base_lr=0.1)])
    write_log(tmp_path / 'b', '1', [train(10, 5.0, lr=0.05)])
    runs = {name: read_work_dir(tmp_path / name) for name in 'ab'}
    rate = draw_curves(runs, 'Training').axes[2]
    assert [list(line.get_ydata()) for line in rate.lines] == [[0.1], [0.05]]
