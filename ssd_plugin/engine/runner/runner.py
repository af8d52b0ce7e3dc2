"""MMEngine's runner for runs that are killed and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, get_rank, is_main_process, master_only
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import RUNNERS  # where MMDetection's train.py looks for a runner_type
from mmengine.runner import BaseLoop, Runner

from ssd_plugin.engine.hooks.preemption_hook import PreemptionHook
from ssd_plugin.engine.hooks.runtime_info_hook import DeferredRuntimeInfoHook
from ssd_plugin.engine.runner.changed_settings import Settings, can_change, keep_settings
from ssd_plugin.engine.runner.checkpoint_files import (
    LAST_CHECKPOINT,
    UNFINISHED,
    find_checkpoint,
    finish,
    is_complete,
    remove_unfinished,
    write_file,
)
from ssd_plugin.engine.runner.loops import ResumableEpochLoop, resumable_loop
from ssd_plugin.errors import CheckpointError, DamagedCheckpointError, one_line


@RUNNERS.register_module()
class ResumableRunner(Runner):
    """MMEngine's ``Runner``; a run that is killed and resumed ends with the same weights.

    - It trains with the loops of :mod:`.loops` where the config names MMEngine's.
    - It writes a checkpoint under a temporary name, then renames it.
    - It resumes from the last complete checkpoint, with the rates and the schedule of the config
      where these have changed, and with the best checkpoint of its own work directory.
    - It has a :class:`PreemptionHook` and, unless the config names another ``runtime_info``, a
      :class:`DeferredRuntimeInfoHook`.

    On a CPU the weights are the same bit by bit. On a GPU this requires
    ``randomness=dict(deterministic=True)``, as it does for two runs from the same seed.
    """

    _load_from: str | None  # set by MMEngine

    @property
    def diff_rank_seed(self) -> bool:
        """Whether each rank has a seed of its own."""
        return self._randomness_cfg.get('diff_rank_seed', False)

    @property
    def data_seed(self) -> int:
        """Seed of the data's order and augmentation: the same on all ranks."""
        return self.seed - get_rank() if self.diff_rank_seed else self.seed

    def register_hooks(
        self, default_hooks: dict | None = None, custom_hooks: list | None = None
    ) -> None:
        """Register the config's hooks, and those that every resumable run has."""
        ours = dict(runtime_info=dict(type=DeferredRuntimeInfoHook))
        super().register_hooks(ours | (default_hooks or {}), custom_hooks)
        self.register_hook(PreemptionHook())

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build a training loop, the resumable one where the config names MMEngine's."""
        return super().build_train_loop(resumable_loop(loop) if isinstance(loop, dict) else loop)

    def load_or_resume(self) -> None:
        """Load or resume from the checkpoint asked for, or else the last complete one.

        Raises:
            DamagedCheckpointError: The one asked for is damaged, or all of them are.
        """
        if not self._resume or self._has_loaded:
            super().load_or_resume()
            return
        if self._load_from is None:
            self._load_from = self._find_checkpoint()
        elif Path(self._load_from).exists() and not is_complete(Path(self._load_from)):
            raise DamagedCheckpointError(
                f'{self._load_from} is damaged (cut off or changed): name another with --resume, '
                'or none for the last in the work dir that is whole'
            )
        if self._load_from is None:
            self.logger.info(f'No checkpoint in {self.work_dir}: training begins at its start')
        else:
            super().load_or_resume()

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: Its optimizer has other groups of parameters.
        """
        configured = Settings.of(self) if can_change(self) else None
        try:
            super().resume(filename, *args, **kwargs)
        except ValueError as error:
            if 'parameter group' not in str(error):
                raise
            remedy = 'begin a new run with its weights by --load-from'
            raise CheckpointError(
                f"{filename} has another optimizer's state ({one_line(error)}): {remedy}"
            ) from error
        if isinstance(self.train_loop, ResumableEpochLoop):
            self.train_loop.fit_position()
        if configured:
            keep_settings(self, configured)
        self._forget_best_of_other_runs()

    def _forget_best_of_other_runs(self) -> None:
        """The best checkpoint is removed when there is a better one: not that of another run."""
        if any(isinstance(hook, CheckpointHook) and hook.out_dir for hook in self.hooks):
            return
        info, here = self.message_hub.runtime_info, Path(self.work_dir).absolute()
        best = [path for key, path in info.items() if key.startswith('best_ckpt')]
        if any(Path(path).parent.absolute() != here for path in best):
            for key in [key for key in info if key.startswith('best_')]:
                info.pop(key)

    def _find_checkpoint(self) -> str | None:
        """The last complete checkpoint, which the first rank looks for."""
        found: list[Any] = [None]
        if is_main_process():
            remove_unfinished(Path(self.work_dir))
            try:
                found = [find_checkpoint(Path(self.work_dir), self.logger.warning)]
            except DamagedCheckpointError as error:
                found = [error]
        broadcast_object_list(found)
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0] and str(found[0])

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint; a local file gets its name once it is written."""
        for hook in self.hooks:
            if isinstance(hook, DeferredRuntimeInfoHook):
                hook.flush(self)
        backend_args = kwargs.get('backend_args')
        if not isinstance(get_file_backend(str(out_dir), backend_args=backend_args), LocalBackend):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        super().save_checkpoint(out_dir, filename + UNFINISHED, *args, **kwargs)
        finish(Path(out_dir) / (filename + UNFINISHED))

    def save_now(self, filename: str, num_iters: int) -> None:
        """Save all that resuming needs after so many iterations, as the last checkpoint."""
        meta = dict(epoch=self.epoch, iter=num_iters)
        self.save_checkpoint(self.work_dir, filename, meta=meta)
        if is_main_process():
            path = Path(self.work_dir) / filename
            write_file(Path(self.work_dir) / LAST_CHECKPOINT, str(path).encode())
