"""Checkpoints at intervals, of the best validation, and when a run is asked to stop."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook

from armbench_mmdet.engine.checkpoints import mark_latest, mark_validated, remove_checkpoint
from armbench_mmdet.engine.runner import ArmbenchRunner
from armbench_mmdet.errors import InputError, nearest
from armbench_mmdet.files import remove_drafts
from armbench_mmdet.run_folder import INTERRUPTED, VALIDATION_LOSS_PREFIX


class _LateRemoval(LocalBackend):
    """Local files whose removal waits until what comes instead is there."""

    def __init__(self) -> None:
        super().__init__()
        self.unwanted: list[Path] = []

    def remove(self, filepath: str | Path) -> None:
        """Take note of a checkpoint to remove."""
        self.unwanted.append(Path(filepath))

    def remove_now(self) -> None:
        """Remove them."""
        while self.unwanted:
            remove_checkpoint(self.unwanted.pop())


def _check_monitored(runner: ArmbenchRunner, indicators: Sequence[str | None]) -> None:
    """Refuse names of metrics that no validation gives, of the best checkpoint and of all else that follows one."""
    metrics = runner.val_loop.evaluator.metrics if runner.val_loop else []
    if not metrics or not all(hasattr(metric, 'logged_names') for metric in metrics):
        return
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    wanted = [*indicators, *(getattr(one, 'monitor', None) for one in (*runner.hooks, *schedulers))]
    known = [name for metric in metrics for name in metric.logged_names()]
    for name in wanted:
        if name and name not in ('auto', *known) and not name.startswith(VALIDATION_LOSS_PREFIX):
            hint = nearest(name, [*known, f'{VALIDATION_LOSS_PREFIX}loss'], cutoff=0.5)
            raise InputError(f'save_best and monitor must name what a validation gives, got {name!r}{hint}')


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with files that are never half there.

    Every checkpoint is written aside, read back, synced and renamed, with a checksum beside it; ``last_checkpoint``
    likewise. An older checkpoint, or the best until now, is removed only after that. A full disk ends the run with
    everything earlier intact. What a validation changes is kept in a small file beside the checkpoint of that moment,
    so that a run resumed from it does not validate twice.

    Args:
        **kwargs: As for ``CheckpointHook``, but for ``backend_args`` and ``file_client_args``: files are local.

    Raises:
        InputError: A storage backend was given, or an option that the hook does not have.
    """

    def __init__(self, **kwargs: Any) -> None:
        for name in ('backend_args', 'file_client_args'):
            if kwargs.pop(name, None) is not None:
                raise InputError(f'{name} must be left out: AtomicCheckpointHook writes local files')
        options = inspect.signature(CheckpointHook).parameters
        unknown = [name for name in kwargs if name not in options]
        if unknown:
            raise InputError(f'AtomicCheckpointHook has no option {unknown[0]!r}{nearest(unknown[0], options)}')
        super().__init__(**kwargs)
        self.keep_ckpt_ids: Any = []
        self._written_step: int | None = None

    def before_train(self, runner: ArmbenchRunner) -> None:
        """Find out where checkpoints go and which are kept; remove what a killed run left half written.

        Raises:
            InputError: The runner is mmengine's, whose checkpoints can be half there; or a metric to choose by is none
                that the validation gives.
        """
        if not isinstance(runner, ArmbenchRunner):
            raise InputError(
                f"runner_type must be 'ArmbenchRunner' for AtomicCheckpointHook, got {type(runner).__name__!r}"
            )
        indicators = getattr(self, 'key_indicators', None) or []
        _check_monitored(runner, indicators)
        for name, rule in zip(indicators, getattr(self, 'rules', []), strict=False):
            if str(name).startswith(VALIDATION_LOSS_PREFIX) and rule == 'greater':
                raise InputError(
                    f"rule must be 'less' for save_best={name!r}, got 'greater': the largest loss is no best"
                )
        kept = list(runner.message_hub.get_info('keep_ckpt_ids', []))
        super().before_train(runner)
        self.file_backend = _LateRemoval()
        if self.max_keep_ckpts > 0:
            self._remove_surplus(kept)
        if is_main_process():
            remove_drafts(Path(self.out_dir))
            remove_drafts(Path(runner.work_dir))

    def after_val_epoch(self, runner: ArmbenchRunner, metrics: dict[str, float]) -> None:
        """Write the best checkpoint, then remove the one it beats; mark this moment's checkpoint as validated."""
        if not hasattr(self, 'file_backend'):  # a validation without training: nothing to save
            return
        super().after_val_epoch(runner, metrics)
        step = runner.epoch if self.by_epoch else runner.iter
        if is_main_process():
            self.file_backend.remove_now()
            if self._written_step == step:
                optimizer = runner.optim_wrapper.state_dict()
                rates = {key: value for key, value in optimizer.items() if key != 'state'}  # that is large
                mark_validated(self._path(step), {**runner.progress_state(), 'optimizer': rates})

    def save_now(self, runner: ArmbenchRunner, iterations: int) -> Path:
        """Save everything at once; for a run that has to stop.

        Args:
            runner: Between two iterations of training.
            iterations: How many are finished; the runner counts one only after its ``after_train_iter``.

        Returns:
            The checkpoint to resume from, also named in ``last_checkpoint``.
        """
        path = Path(self.out_dir) / INTERRUPTED
        self._save(runner, path, dict(epoch=runner.epoch, iter=iterations))
        return path

    def _path(self, step: int) -> Path:
        return Path(self.out_dir) / self.filename_tmpl.format(step)

    def _save(self, runner: ArmbenchRunner, path: Path, meta: dict[str, Any], **kwargs: Any) -> None:
        runner.save_checkpoint(
            str(path.parent),
            path.name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            **kwargs,
        )
        if is_main_process():
            mark_latest(Path(runner.work_dir), path)

    def _save_checkpoint_with_step(self, runner: ArmbenchRunner, step: int, meta: dict[str, Any]) -> None:
        if self._written_step == step:  # mmengine writes it again after a validation that was the best
            return
        kept = [*(earlier for earlier in self.keep_ckpt_ids if earlier != step), step]
        if self.max_keep_ckpts > 0:
            # One too many, perhaps: a run killed before the removal below removes it when it is resumed.
            runner.message_hub.update_info('keep_ckpt_ids', list(kept))
        path = self._path(step)
        self.last_ckpt = str(path)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._save(runner, path, meta, by_epoch=self.by_epoch, **self.args)
        self._written_step = step
        if is_main_process():
            remove_checkpoint(path.with_name(INTERRUPTED))
        if self.max_keep_ckpts > 0:
            self._remove_surplus(kept)

    def _remove_surplus(self, kept: list[int]) -> None:
        if is_main_process():
            for step in kept[: -self.max_keep_ckpts]:
                remove_checkpoint(self._path(step))
        self.keep_ckpt_ids = kept[-self.max_keep_ckpts :]
