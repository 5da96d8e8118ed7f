"""Checkpoints at intervals, of the best validation, and when a run is asked to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from armbench_mmdet.engine.checkpoints import BACKEND_ARGS, mark_latest, remove_checkpoint, remove_drafts
from armbench_mmdet.errors import InputError
from armbench_mmdet.run_folder import INTERRUPTED


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with files that are never half there.

    Every checkpoint is written aside, synced, read back and renamed, with a checksum beside it; ``last_checkpoint``
    likewise. An older checkpoint, or the best until now, is removed only after that. A full disk ends the run with
    everything earlier intact. After a validation the checkpoint of that moment is written again and knows it, so that
    a run resumed from it does not validate twice.

    Args:
        **kwargs: As for ``CheckpointHook``, but for ``backend_args`` and ``file_client_args``: files are local.

    Raises:
        InputError: A storage backend was given.
    """

    def __init__(self, **kwargs: Any) -> None:
        for name in ('backend_args', 'file_client_args'):
            if kwargs.pop(name, None) is not None:
                raise InputError(f'{name} must be left out: AtomicCheckpointHook writes local files')
        super().__init__(backend_args=BACKEND_ARGS, **kwargs)
        self.keep_ckpt_ids: Any = []
        self._is_validated = False
        self._written: tuple[int, bool] | None = None

    def before_train(self, runner: Runner) -> None:
        """Find out where checkpoints go and which are kept; remove what a killed run left half written."""
        super().before_train(runner)
        if is_main_process():
            remove_drafts(Path(self.out_dir))
            remove_drafts(Path(runner.work_dir))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Write the best checkpoint, then remove the one it beats; mark this moment's checkpoint as validated."""
        if not hasattr(self, 'file_backend'):  # a validation without training: nothing to save
            return
        self._is_validated = True
        self.file_backend.hold()
        super().after_val_epoch(runner, metrics)
        step = runner.epoch if self.by_epoch else runner.iter
        if self._written == (step, False):
            self._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=runner.iter))
        self.file_backend.release()
        self._is_validated = False

    def save_now(self, runner: Runner, iterations: int) -> Path:
        """Save everything at once; for a run that has to stop.

        Args:
            runner: Between two iterations of training.
            iterations: How many are finished; the runner counts one only after its ``after_train_iter``.

        Returns:
            The checkpoint to resume from, also named in ``last_checkpoint``.
        """
        path = Path(self.out_dir) / INTERRUPTED
        runner.save_checkpoint(
            str(path.parent),
            path.name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=dict(epoch=runner.epoch, iter=iterations),
            by_epoch=False,
            backend_args=self.backend_args,
        )
        if is_main_process():
            mark_latest(Path(runner.work_dir), path)
        return path

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        kept = [*(earlier for earlier in self.keep_ckpt_ids if earlier != step), step]
        if self.max_keep_ckpts > 0:
            # One too many, perhaps: a run killed before the removal below removes it when it is resumed.
            runner.message_hub.update_info('keep_ckpt_ids', list(kept))
        path = Path(self.out_dir) / self.filename_tmpl.format(step)
        self.last_ckpt = str(path)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            str(path.parent),
            path.name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta={**meta, 'validated': self._is_validated},
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._written = (step, self._is_validated)
        if is_main_process():
            mark_latest(Path(runner.work_dir), path)
            remove_checkpoint(path.with_name(INTERRUPTED))
        if self.max_keep_ckpts > 0:
            self._remove_surplus(kept)

    def _remove_surplus(self, kept: list[int]) -> None:
        if is_main_process():
            for step in kept[: -self.max_keep_ckpts]:
                remove_checkpoint(Path(self.out_dir) / self.filename_tmpl.format(step))
        self.keep_ckpt_ids = kept[-self.max_keep_ckpts :]
