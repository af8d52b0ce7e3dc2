"""Logs of training runs, read and drawn."""

import pytest

from ssd_plugin.errors import InputError
from ssd_plugin.visualization.curves import draw_curves, read_log, read_work_dir
from tests.support.logs import train, val, write_log

FIRST, EVALUATED = [train(10, 5.0), train(20, 4.0)], val(1, 0.2)
# A killed run may have trained an epoch, and be killed in its evaluation or after it.
AGAIN = [val(1, 0.3), train(25, 3.0), val(2, 0.5)]
BOTH_AGAIN = [(10, 5.0), (20, 4.0), (25, 3.0)], [(20, 0.3), (25, 0.5)]
LOGS = {  # the runs in a work directory, and the losses and mAPs read
    'an evaluation stands at the iteration before it': (
        [[*FIRST, EVALUATED, train(30, 3.5), val(2, 0.4)]],
        ([(10, 5.0), (20, 4.0), (30, 3.5)], [(20, 0.2), (30, 0.4)]),
    ),
    'a resumed run goes on where it began, and a test does not count': (
        [
            [*FIRST, EVALUATED, train(30, 9.0)],
            [val(0, 0.9)],
            [train(25, 3.0), train(35, 2.5), val(2, 0.5)],
        ],
        ([(10, 5.0), (20, 4.0), (25, 3.0), (35, 2.5)], [(20, 0.2), (35, 0.5)]),
    ),
    'an evaluation made again': ([[*FIRST, EVALUATED, train(30, 9.0)], AGAIN], BOTH_AGAIN),
    'an evaluation made up for': ([[*FIRST, train(30, 9.0)], AGAIN], BOTH_AGAIN),
    'a new start replaces the run before': (
        [[*FIRST, EVALUATED], [train(10, 6.0)]], ([(10, 6.0)], []),
    ),
}  # fmt: skip


@pytest.mark.parametrize('runs, expected', LOGS.values(), ids=LOGS)
def test_runs_are_joined_over_iterations(runs, expected, tmp_path):
    for number, entries in enumerate(runs):
        write_log(tmp_path, str(number), entries)
    series = read_work_dir(tmp_path)
    assert (series['loss'], series['pascal_voc/mAP']) == expected


def test_a_line_that_was_cut_off_is_passed_over(tmp_path):
    path = write_log(tmp_path, '1', [train(10, 3.0), train(20, 2.0)])
    path.write_text(path.read_text() + '{"loss": 1, "st')
    assert [value for _, value in read_log(path)['loss']] == [3.0, 2.0]


def test_where_nothing_was_trained_it_says_so(tmp_path):
    write_log(tmp_path, '1', [val(0, 0.5)])
    with pytest.raises(InputError, match='no training'):
        read_work_dir(tmp_path)


def test_a_line_for_each_run_and_series(tmp_path):
    entries = [train(10, 5.0), train(20, 4.0), val(1, 0.2)]
    write_log(tmp_path / 'a', '1', [entry | dict(base_lr=0.3) for entry in entries])
    write_log(tmp_path / 'b', '1', [train(10, 6.0), train(20, 3.0, lr=0.05)])
    runs = {name: read_work_dir(tmp_path / name) for name in 'ab'}
    loss, precision, rate = draw_curves(runs, 'Training').axes
    first = [line.get_ydata()[0] for line in loss.lines]
    assert first == pytest.approx([5, 3.5, 1.5, 6, 4.2, 1.8])
    assert [list(line.get_xydata()[0]) for line in precision.lines] == [[20, 0.2]]
    # That of the config, where the first parameters have a share of it.
    assert [list(line.get_ydata()) for line in rate.lines] == [[0.3, 0.3, 0.3], [0.1, 0.05]]
    assert len({line.get_color() for line in loss.lines}) == 2
    names = [text.get_text() for text in loss.get_legend().get_texts()]
    assert names == ['loss', 'loss_cls', 'loss_bbox']
