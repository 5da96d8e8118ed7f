"""The hook that tells a sweep how a training goes, and stops it when the sweep has seen enough."""

from __future__ import annotations

import json
import os
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.channel import VARIABLE, Reporter


@HOOKS.register_module()
class SweepReportHook(Hook):
    """Reports the sweep's metric after each validation; a pruned training ends there, in order.

    Under several processes only rank 0 reports, and its answer is broadcast, so that all stop at the same iteration.
    The sweep adds the hook on the command line and says in the environment where to report; without that it does
    nothing, so a dumped config that has it trains anywhere.
    """

    priority = 'LOWEST'  # after the checkpoint of this validation is written

    def __init__(self) -> None:
        given: dict[str, Any] = json.loads(os.environ.get(VARIABLE, '{}'))
        self.objective: str = given.get('objective', '')
        self._reporter = Reporter(given['folder'], given['worker_pid']) if given else None

    def before_train(self, runner: Runner) -> None:
        """End the process if its worker is gone."""
        self._check_worker()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """End the process if its worker is gone: nobody would take its result."""
        self._check_worker()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Report the metric, and stop training if the answer says so.

        Raises:
            InputError: The validation has no metric of that name.
        """
        if self._reporter is None:
            return
        if self.objective not in (metrics or {}):
            known = ', '.join(metrics or {}) or 'none'
            raise InputError(
                f'objective must be one of the metrics logged at validation, {known}; got {self.objective!r}'
            )
        stop = [self._reporter.report((metrics or {})[self.objective]) if is_main_process() else False]
        broadcast_object_list(stop)
        if stop[0]:
            runner.logger.info('The sweep stops this trial: others did better at this point.')
            runner.train_loop.stop_training = True

    def _check_worker(self) -> None:
        if self._reporter is not None and self._reporter.is_abandoned():
            raise SystemExit('the worker of this trial is gone')
