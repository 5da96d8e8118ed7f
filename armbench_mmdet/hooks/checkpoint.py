"""Checkpoints at intervals, of the best validation, and when a run is asked to stop."""

import inspect
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from armbench_mmdet.engine.checkpoints import remove_checkpoint
from armbench_mmdet.errors import InputError, nearest
from armbench_mmdet.files import remove_drafts, write_atomically
from armbench_mmdet.run_folder import INTERRUPTED, LATEST, VALIDATION_LOSS_PREFIX


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with files that are never half there
    (:class:`~armbench_mmdet.engine.checkpoints.AtomicBackend`).

    An older checkpoint, or the best until now, is removed only once the new one is complete. A full disk ends the run
    with everything earlier intact. A checkpoint holds the run as it was before the validation of that moment, and is
    not written again after it: a run that is resumed from it validates first.

    Args:
        **kwargs: As for ``CheckpointHook``, but for ``backend_args`` and ``file_client_args``: files are local.

    Raises:
        InputError: There is an option that the hook does not have.
    """

    last_ckpt: str | None

    def __init__(self, **kwargs: Any) -> None:
        options = inspect.signature(CheckpointHook).parameters
        for name in kwargs.keys() - options.keys():  # mmengine would take it for an option of the writing
            raise InputError(f'AtomicCheckpointHook has no option {name!r}{nearest(name, options)}')
        super().__init__(**kwargs, backend_args={'backend': 'atomic', 'unwanted': []})

    def before_train(self, runner: Runner) -> None:
        """Find out where checkpoints go and which are kept; remove what a killed run left half written.

        Raises:
            InputError: A metric to choose by is none that the validation gives.
        """
        indicators = getattr(self, 'key_indicators', None) or []
        _check_monitored(runner, indicators)
        for name, rule in zip(indicators, getattr(self, 'rules', []), strict=False):
            if str(name).startswith(VALIDATION_LOSS_PREFIX) and rule == 'greater':
                raise InputError(
                    f"rule must be 'less' for save_best={name!r}, got 'greater': the largest loss is no best"
                )
        super().before_train(runner)
        if is_main_process():
            remove_drafts(Path(self.out_dir))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Write the best checkpoint, then remove the one it beats."""
        if not hasattr(self, 'file_backend'):  # a validation without training: nothing to save
            return
        latest, self.last_ckpt = self.last_ckpt, None  # else mmengine writes that again, as it is now
        super().after_val_epoch(runner, metrics)
        self.last_ckpt = latest

    def save_now(self, runner: Runner, iterations: int) -> None:
        """Save everything at once, and name it in ``last_checkpoint``; for a run that has to stop.

        Args:
            runner: Between two iterations of training.
            iterations: How many are finished; the runner counts one only after its ``after_train_iter``.
        """
        meta = dict(epoch=runner.epoch, iter=iterations)
        runner.save_checkpoint(self.out_dir, INTERRUPTED, meta=meta, backend_args=self.backend_args)
        if is_main_process():
            write_atomically(Path(runner.work_dir, LATEST), str(Path(self.out_dir, INTERRUPTED)))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        if is_main_process():
            remove_checkpoint(Path(self.out_dir, INTERRUPTED))


def _check_monitored(runner: Runner, indicators: list[str]) -> None:
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
