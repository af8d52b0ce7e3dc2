"""Logs as MMEngine writes them."""

import json


def write_log(work_dir, time, entries):
    path = work_dir / time / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
    return path


def logged(work_dir, name):
    """A number of each iteration, such as the loss, by the iteration; of the last run there."""
    scalars = max(work_dir.rglob('scalars.json'))
    entries = [json.loads(line) for line in scalars.read_text().splitlines()]
    return {entry['step']: entry[name] for entry in entries if 'loss' in entry}


def logged_losses(work_dir):
    """The loss of each iteration, by number, of the last run that has been logged there."""
    return logged(work_dir, 'loss')


def train(step, loss, lr=0.1):
    parts = dict(loss_cls=loss * 0.7, loss_bbox=loss * 0.3)
    return dict(lr=lr, data_time=0.1, loss=loss, **parts, time=1.0, iter=step, step=step)


def val(epoch, value):
    return {'pascal_voc/mAP': value, 'pascal_voc/AP50': value, 'time': 0.1, 'step': epoch}
