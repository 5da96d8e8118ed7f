"""From a config to a run: training, testing."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path

from mmdet.registry import DATASETS, RUNNERS
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from armbench_mmdet.datasets.release import SUBSETS, check_choice
from armbench_mmdet.engine.checkpoints import latest_checkpoint, load_exactly
from armbench_mmdet.engine.failure import explained_failures
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.evaluation.result import Result
from armbench_mmdet.files import sha256_of
from armbench_mmdet.hooks.prediction_pictures import PicturesHook
from armbench_mmdet.hooks.self_test import run_selftest


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


def chosen_subsets(name: str | None) -> tuple[str | None, ...]:
    """Return the subsets ``--subset`` asks for: one by name, ``all``, or the config's.

    Raises:
        InputError: There is no subset of that name.
    """
    if name is None or name == 'all':
        return SUBSETS if name else (None,)
    return (check_choice('--subset', name, (*SUBSETS, 'all')),)


def on_data(config: Config, subset: str | None, split: str | None) -> Config:
    """Return a copy of ``config`` that tests on a subset and split; None leaves what it says.

    Raises:
        InputError: The config tests on files of its own.
    """
    config = copy.deepcopy(config)
    dataset = config.test_dataloader.dataset
    chosen = {key: value for key, value in (('subset', subset), ('split', split)) if value is not None}
    own = [key for key in ('ann_file', 'dataset', 'datasets') if dataset.get(key)]
    if chosen and own:
        raise InputError(
            f"--subset and --split choose one of ARMBench's files; got {chosen} where test_dataloader.dataset has its "
            f'own {own[0]} (in {config.filename}); leave them out'
        )
    dataset.update(chosen)
    return config


def evaluation_config(config: Config) -> Config:
    """Return ``config``, changed in place so that nothing of training is built."""
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'val_dataloader', 'val_cfg', 'val_evaluator'):
        config[key] = None
    config.param_scheduler = None
    config.auto_scale_lr = None
    config.load_from = None
    config.resume = False
    return config


def selftest(config: Config, subset: str | None, split: str | None) -> str:
    """Send the ground truth of a few images through the evaluation as predictions; it must score 1.0.

    Args:
        config: Its test loader's data set is used.
        subset: Folder name of the subset; None for the config's.
        split: ``val`` or ``test``; None for the config's.

    Returns:
        What scored 1.0.

    Raises:
        InputError: It scores less; the message names the step that lost it.
    """
    init_default_scope(config.default_scope)
    dataset = DATASETS.build(on_data(config, subset, split).test_dataloader.dataset)
    source = dataset.ground_truth
    images = run_selftest(dataset, source.load(), load_annotations={'type': 'LoadPolygons'})
    return f'{source.subset} {source.split}: the ground truth of {images} images scores 1.0'


def evaluate(
    config: Config, checkpoint: Path, subsets: Sequence[str | None], split: str | None, out_dir: Path
) -> dict[str, Result]:
    """Evaluate a checkpoint on each subset: one model, loaded once.

    Args:
        config: The config; its data root decides where the subsets are looked for.
        checkpoint: The checkpoint file.
        subsets: Folder names of the subsets, None for the config's. With several, one that is missing is reported and
            left out.
        split: ``val`` or ``test``; None for the config's.
        out_dir: Where the result files go.

    Returns:
        The result of each subset that was there; nothing in processes but the first.

    Raises:
        InputError: The only subset, or every one of them, is missing; the checkpoint does not fit the config; the
            config names a file of its own, and a subset or split is asked for.
    """
    configs = {subset: evaluation_config(on_data(config, subset, split)) for subset in subsets}
    identity = {
        'config': str(config.filename),
        'checkpoint': str(checkpoint),
        'seed': config.get('randomness', {}).get('seed'),
        'extra': {'checkpoint_sha256': sha256_of(checkpoint)},
    }
    runner = build_runner(configs[subsets[0]])
    trusted = bool(config.get('trust_checkpoint', False))
    load_exactly(runner.model, checkpoint, str(config.filename), trusted)
    runner.call_hook('before_run')
    results: dict[str, Result] = {}
    evaluated = 0
    for subset, own in configs.items():
        parts = {'dataloader': own.test_dataloader, 'evaluator': own.test_evaluator}
        try:
            loop = runner.build_test_loop({'type': 'TestLoop', **own.test_cfg, **parts})
            metric = next((one for one in loop.evaluator.metrics if isinstance(one, ArmbenchMetric)), None)
            if metric is None:
                raise InputError(f'test_evaluator must have an ArmbenchMetric, got none (in {config.filename})')
            metric.write_to(out_dir, identity)
        except InputError as error:
            if len(subsets) == 1:
                raise
            print_log(f'{subset} is left out: {error}', logger='current')
            continue
        runner._test_loop = loop  # hooks look for it in the runner, which has no public way to give it another
        if len(subsets) > 1:
            _draw_apart(runner, metric.source.subset)
        with explained_failures(runner):
            loop.run()
        evaluated += 1
        if metric.result is not None:  # only the first process has it
            results[metric.source.subset] = metric.result
    if not evaluated:
        raise InputError(f'at least one subset must be there, got none of {", ".join(SUBSETS)}')
    runner.call_hook('after_run')
    return results


def _draw_apart(runner: Runner, subset: str) -> None:
    """Let pictures of a subset go to a folder of their own: subsets may share file names."""
    folder = runner.cfg.default_hooks.get('visualization', {}).get('test_out_dir')
    for hook in runner.hooks:
        if folder and isinstance(hook, PicturesHook):
            hook.test_out_dir = os.path.join(folder, subset)
