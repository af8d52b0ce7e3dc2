"""What a run tells about faults in its data: the files that are left out, and those that count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmdet.models import BaseDetector
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader
from torch.utils.hooks import RemovableHandle

from ssd_plugin.datasets.faults import DataFault, known_faults


@HOOKS.register_module()
class DataFaultHook(Hook):
    """Report the files that a data set left out or that stand in evaluation for nothing.

    1. Before training, validation and testing, take what reading the annotations has found, of
       the package's data sets (``FaultTolerance``), and report it.
    2. In each iteration, take what loading has found since, from the samples.
    3. At the end of each epoch, before and after each validation and after testing, sum over
       ranks. If there is more than at the last report, log one warning and write ``out_file`` in
       the work directory: a line with tab-separated split, path, kind of fault and details.
    4. In evaluation, let the model find nothing in images that can't be decoded.

    Without faults the hook says nothing.

    Args:
        out_file: Name of the list.
        max_names: How many files the warning names.
    """

    def __init__(self, out_file: str = 'data_faults.txt', max_names: int = 3) -> None:
        self.out_file = out_file
        self.max_names = max_names
        self.faults: set[tuple[str, DataFault]] = set()  # by split
        self._num_reported = 0
        self._handles: list[RemovableHandle] = []

    def before_train(self, runner: Runner) -> None:
        """Report what reading the annotations has found."""
        self._start(runner, 'train', runner.train_dataloader)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Take what loading has found."""
        self._collect('train', data_batch)

    def after_train_epoch(self, runner: Runner) -> None:
        """Report what is new."""
        self._report(runner)

    def before_val(self, runner: Runner) -> None:
        """The same, and see to images that can't be decoded."""
        self._start(runner, 'val', runner.val_dataloader)
        self._find_nothing_in_unreadable(runner)

    def before_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Take what loading has found."""
        self._collect('val', data_batch)

    def after_val(self, runner: Runner) -> None:
        """Report what is new, and leave the model as it was."""
        self._finish(runner)

    def before_test(self, runner: Runner) -> None:
        """As before a validation."""
        self._start(runner, 'test', runner.test_dataloader)
        self._find_nothing_in_unreadable(runner)

    def before_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Take what loading has found."""
        self._collect('test', data_batch)

    def after_test(self, runner: Runner) -> None:
        """As after a validation."""
        self._finish(runner)

    def _start(self, runner: Runner, split: str, dataloader: DataLoader) -> None:
        self.faults.update((split, fault) for fault in known_faults(dataloader.dataset))
        self._report(runner)

    def _collect(self, split: str, data_batch: dict) -> None:
        for sample in _flat(data_batch['data_samples']):
            self.faults.update((split, fault) for fault in sample.get('data_faults', ()))

    def _find_nothing_in_unreadable(self, runner: Runner) -> None:
        detectors = [part for part in runner.model.modules() if isinstance(part, BaseDetector)]
        self._handles = [part.register_forward_hook(drop_unreadable) for part in detectors]

    def _finish(self, runner: Runner) -> None:
        for handle in self._handles:
            handle.remove()
        self._report(runner)

    def _report(self, runner: Runner) -> None:
        faults = sorted(set().union(*all_gather_object(self.faults)))
        if len(faults) <= self._num_reported:  # the same on all ranks: so they go on together
            return
        self._num_reported = len(faults)
        if not is_main_process():
            return
        path = Path(runner.work_dir) / self.out_file
        lines = ['\t'.join((split, f.path, f.kind, _one_line(f.detail))) for split, f in faults]
        path.write_text('\n'.join([*lines, '']), encoding='utf-8')
        counts = Counter(fault.kind for _, fault in faults).most_common()
        by_kind = ', '.join(f'{number} {kind}' for kind, number in counts)
        names = list(dict.fromkeys(Path(fault.path).name for _, fault in faults))
        more = ', ...' if len(names) > self.max_names else ''
        runner.logger.warning(
            f'{len(faults)} faults in the data '
            f'({by_kind}): '
            f'{", ".join(names[: self.max_names])}{more}; all are listed in {path}'
        )


def drop_unreadable(model: BaseDetector, inputs: tuple, outputs: object) -> None:
    """A forward hook: take the detections from samples that are marked ``unreadable``."""
    for sample in outputs if isinstance(outputs, list) else ():
        if isinstance(sample, DetDataSample) and sample.get('unreadable'):
            sample.pred_instances = sample.pred_instances[:0]


def _flat(samples: Sequence) -> Iterator[DetDataSample]:
    """Samples, in lists for each view where an image has several."""
    for sample in samples:
        yield from sample if isinstance(sample, (list, tuple)) else [sample]


def _one_line(text: str) -> str:
    return ' '.join(text.split())
