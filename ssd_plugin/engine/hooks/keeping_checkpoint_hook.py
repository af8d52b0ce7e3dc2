"""A checkpoint hook that never leaves a run without a checkpoint."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner


@HOOKS.register_module()
class KeepingCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, which removes an old checkpoint once the new one is written.

    MMEngine's removes it first: with ``max_keep_ckpts=1``, a kill before the new one is there
    leaves none. Arguments are the same.
    """

    def __init__(self, *args, max_keep_ckpts: int = -1, **kwargs) -> None:
        # The parent then always has room for one more, and removes nothing.
        room = max_keep_ckpts + 1 if max_keep_ckpts > 0 else max_keep_ckpts
        super().__init__(*args, max_keep_ckpts=room, **kwargs)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        if 0 < self.max_keep_ckpts == len(self.keep_ckpt_ids):
            old = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
            if is_main_process():
                path = self.file_backend.join_path(self.out_dir, old)
                if self.file_backend.exists(path):
                    self.file_backend.remove(path)
