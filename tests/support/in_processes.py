"""Several processes that train or evaluate together, on a CPU: what they run, and how to start it.

They are forks of a process that has imported MMDetection, with the environment that torchrun would
give them.
"""

import os
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch
import torch.distributed as dist
from mmdet.registry import MODELS
from mmengine.hooks import LoggerHook
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn

from ssd_plugin.engine.hooks.norm_stats_hook import NormStatsHook
from tests.support.commands import SERVER, run_script

# --- starting them -------------------------------------------------------------------------------


def run_ranks(world_size, tool, *args, cwd, timeout=200):
    """Run a command in each of several processes; what each has printed."""
    argv = [str(tool), *map(str, args)]
    outputs = [Path(cwd) / f'rank_{rank}_of_{world_size}.txt' for rank in range(world_size)]
    processes = start(world_size, lambda rank: (run_script, argv, str(cwd), str(outputs[rank])))
    exit_codes = join(processes, timeout)
    said = [output.read_text() for output in outputs]
    assert not any(exit_codes), said[exit_codes.index(next(filter(None, exit_codes)))]
    return said


def call_ranks(world_size, function, *args, timeout=200):
    """Call a function in each of several processes that are joined; what each has answered."""
    with tempfile.TemporaryDirectory() as folder:
        answers = [f'{folder}/{rank}.pt' for rank in range(world_size)]
        processes = start(world_size, lambda rank: (_call, function, args, answers[rank]))
        exit_codes = join(processes, timeout)
        assert exit_codes == [0] * world_size, exit_codes
        return [torch.load(answer) for answer in answers]


def start(world_size, target_of):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(world_size):
        environment = dict(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size),
            MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port),
        )  # fmt: skip
        processes.append(SERVER.Process(target=_as_rank, args=(environment, *target_of(rank))))
        processes[-1].start()
    return processes


def join(processes, timeout):
    """Their exit codes."""
    for process in processes:
        process.join(timeout)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def _as_rank(environment, target, *args):
    os.environ.update(environment)
    target(*args)


def _call(function, args, answer):
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    torch.save(function(*args), answer)
    dist.barrier()  # none leaves while another is about to hear from it
    dist.destroy_process_group()


# --- the head's loss -----------------------------------------------------------------------------

BATCH = 4
OBJECTS = [  # in each image of the batch, step by step
    (2, 1, 3, 1),
    (0, 0, 2, 1),  # the first of two processes has none
    (0, 0, 0, 0),
    (0, 5, 0, 0),
    (1, 2, 0, 4),
]
SIZE, CLASSES, CHANNELS = 32, 3, (6, 8)
DECODED = dict(reg_decoded_bbox=True)
FOCAL, MINING = dict(type='FocalLoss', use_sigmoid=True), dict(type='HardNegativeMiningLoss')
QUALITY = dict(type='QualityFocalLoss', use_sigmoid=True)
HEADS = {
    'as the paper': dict(),
    'not mined': dict(loss_cls=dict(type='CrossEntropyLoss')),
    'focal': dict(loss_cls=FOCAL),
    'focal, mined': dict(loss_cls=dict(MINING, loss=FOCAL)),
    'with negatives of empty images': dict(loss_cls=dict(MINING, min_negatives=7)),
    'quality, GIoU of boxes': dict(loss_cls=QUALITY, loss_bbox=dict(type='GIoULoss'), **DECODED),
    'CIoU of boxes': dict(loss_bbox=dict(type='CIoULoss'), **DECODED),
    'smooth L1 of boxes': dict(loss_bbox=dict(type='SmoothL1Loss'), **DECODED),
}


class Loss(nn.Module):
    """A head, whose loss is what DistributedDataParallel calls."""

    def __init__(self, settings):
        super().__init__()
        self.head = MODELS.build(
            dict(
                type='SSDMultiBoxHead', num_classes=CLASSES, in_channels=CHANNELS,
                anchor_generator=dict(
                    type='SSDPriorGenerator', strides=[8, 16], ratios=[[2]] * 2,
                    min_sizes=[8, 16], max_sizes=[16, 28], input_size=SIZE,
                ),
                train_cfg=dict(assigner=dict(type='BatchMaxIoUAssigner')),
            )
            | settings
        )  # fmt: skip
        self.head.init_weights()

    def forward(self, feats, gt_instances):
        metas = [dict(img_shape=(SIZE, SIZE), batch_input_shape=(SIZE, SIZE)) for _ in gt_instances]
        losses = self.head.loss_by_feat(*self.head(feats), gt_instances, metas)
        return losses['loss_cls'] + losses['loss_bbox']


def draw_batch(counts):
    """Feature maps and ground-truth boxes of a batch."""
    feats = [torch.randn(BATCH, c, 32 // s, 32 // s) for c, s in zip(CHANNELS, (8, 16))]
    instances = []
    for count in counts:
        corner, size = torch.rand(count, 2) * 16, torch.rand(count, 2) * 12 + 3
        bboxes, labels = torch.cat([corner, corner + size], 1), torch.randint(CLASSES, (count,))
        instances.append(InstanceData(bboxes=bboxes, labels=labels))
    return feats, instances


def train_heads():
    """Five steps of each head with this rank's part of each batch.

    For each head: the gradients of each step, the final weights, the loss of each step, and the
    sizes of what the forward passes have reduced.
    """
    init_default_scope('mmdet')
    torch.set_default_dtype(torch.double)  # so that 1e-6 is no matter of rounding
    rank, world_size = dist.get_rank(), dist.get_world_size()
    mine = slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)
    return {name: _train_head(HEADS[name], mine, world_size) for name in HEADS}


def _train_head(settings, mine, world_size):
    torch.manual_seed(0)
    model = loss = Loss(settings)
    if world_size > 1:
        model = nn.parallel.DistributedDataParallel(loss)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.05, momentum=0.9)
    gradients, losses, reduced = [], [], []
    all_reduce = dist.all_reduce

    def counting(tensor, *args, **kwargs):
        reduced.append(tensor.numel())
        return all_reduce(tensor, *args, **kwargs)

    for counts in OBJECTS:
        feats, instances = draw_batch(counts)
        dist.all_reduce = counting
        value = model([feat[mine] for feat in feats], instances[mine])
        dist.all_reduce = all_reduce
        optimizer.zero_grad()
        value.backward()
        gradients.append({name: p.grad.clone() for name, p in loss.named_parameters()})
        losses.append(value.detach())
        optimizer.step()
    return dict(  # fmt: skip
        gradients=gradients,
        weights=dict(loss.state_dict()),
        losses=torch.stack(losses),
        reduced=reduced,
    )


# --- the metrics of a test -----------------------------------------------------------------------


def write_metrics(folder):
    """Have MMEngine's hook write the metrics of a test to a file that is named after the rank."""
    hook, runner = LoggerHook(), MagicMock(test_dataloader=[], log_dir=folder)
    hook.json_log_path = f'{dist.get_rank()}.json'
    runner.log_processor.get_log_after_epoch.return_value = dict(mAP=0.5), 'mAP: 0.5'
    hook.after_test_epoch(runner)


# --- running statistics --------------------------------------------------------------------------


def average_norm_stats():
    """A step of layers with BatchNorm: running statistics before and after ``NormStatsHook``."""
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)]
    model = nn.Sequential(nn.Conv2d(3, 3, 1), *norms).train()
    norms[1].eval()
    norms[1].running_mean.fill_(dist.get_rank())  # frozen: nobody's business
    torch.manual_seed(dist.get_rank())
    model(torch.randn(2, 3, 4, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    NormStatsHook().after_train_iter(SimpleNamespace(model=model), 0)
    return before, dict(model.state_dict())
