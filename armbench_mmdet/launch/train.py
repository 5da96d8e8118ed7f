"""A training run from its config."""

from __future__ import annotations

from pathlib import Path

from mmdet.registry import RUNNERS
from mmengine.config import Config
from mmengine.runner import Runner

from armbench_mmdet.engine.checkpoints import latest_checkpoint
from armbench_mmdet.engine.failure import explained_failures
from armbench_mmdet.errors import InputError


def set_amp(config: Config) -> None:
    """Train with automatic mixed precision, as mmdet's ``--amp`` does."""
    config.optim_wrapper.type = 'AmpOptimWrapper'
    config.optim_wrapper.loss_scale = 'dynamic'


def set_auto_scale_lr(config: Config) -> None:
    """Scale the learning rate with the total batch size (``--auto-scale-lr``).

    Raises:
        InputError: The config does not say for which batch size its learning rate is meant.
    """
    if 'base_batch_size' not in config.get('auto_scale_lr', {}):
        raise InputError(
            f'auto_scale_lr.base_batch_size must be set for --auto-scale-lr, got none (in {config.filename})'
        )
    config.auto_scale_lr.enable = True


def set_resume(config: Config, resume: str) -> None:
    """Continue an earlier run: ``'auto'`` for the work directory's latest whole checkpoint, or a checkpoint's path.

    Raises:
        InputError: There is nothing to resume from.
    """
    path = latest_checkpoint(Path(config.work_dir)) if resume == 'auto' else Path(resume)
    if path is None or not path.is_file():
        where = (
            f'a checkpoint in {config.work_dir!r}' if resume == 'auto' else f'an existing checkpoint, got {resume!r}'
        )
        raise InputError(f'--resume must find {where}; leave --resume out to start afresh')
    config.resume = True
    config.load_from = str(path)


def build_runner(config: Config) -> Runner:
    """Build the runner the config names, mmengine's own where it names none."""
    return RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)


def train(config: Config) -> Runner:
    """Train and return the runner, its last validation done."""
    runner = build_runner(config)
    with explained_failures(runner):
        runner.train()
    return runner
