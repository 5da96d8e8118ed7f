"""Random numbers of an iteration, given by its number."""

from __future__ import annotations

from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from armbench_mmdet.engine.loops import TRAINING, VALIDATION, run_seed, seed_generators


@HOOKS.register_module()
class SeedingHook(Hook):
    """Seeds every training iteration and every validation by its number and the process's rank.

    What a model draws at random (samples, points, dropout) then is the same in a run that was resumed, and does not
    depend on what else has drawn random numbers.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed an iteration."""
        seed_generators(run_seed(runner), TRAINING, runner.iter, runner.rank)

    def before_val(self, runner: Runner) -> None:
        """Seed a validation."""
        seed_generators(run_seed(runner), VALIDATION, runner.iter, runner.rank)
