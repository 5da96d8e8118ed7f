"""From a config to a run: training, testing."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path

from mmdet.engine.hooks import DetVisualizationHook
from mmdet.registry import DATASETS, RUNNERS
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from armbench_mmdet.datasets.release import SUBSETS, check_choice
from armbench_mmdet.engine.checkpoints import latest_checkpoint, load_exactly
from armbench_mmdet.engine.failure import explained_failures
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import Result
from armbench_mmdet.files import sha256_of
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


def chosen_subsets(name: str) -> tuple[str, ...]:
    """Return the subsets ``--subset`` asks for: one by name, or ``all``.

    Raises:
        InputError: There is no subset of that name.
    """
    return SUBSETS if name == 'all' else (check_choice('--subset', name, (*SUBSETS, 'all')),)


def evaluation_config(config: Config, checkpoint: Path, digest: str, subset: str, split: str, out_dir: Path) -> Config:
    """Return a copy of ``config`` that evaluates one subset and writes its result file.

    Args:
        config: The config the checkpoint was trained with.
        checkpoint: The checkpoint file.
        digest: Its SHA-256, hexadecimal.
        subset: Folder name of the subset.
        split: ``val`` or ``test``.
        out_dir: Where ``<subset>_<split>.json`` goes.
    """
    config = copy.deepcopy(config)
    dataset = config.test_dataloader.dataset
    dataset.update(subset=subset, split=split)
    if config.default_hooks.get('visualization', {}).get('draw'):
        # Pictures show the photo at its own size, so the ground truth beside the predictions must have it too.
        dataset.pipeline.insert(-1, {'type': 'LoadPolygons'})
    evaluator = config.test_evaluator
    identity = {
        'config': str(config.filename),
        'checkpoint': str(checkpoint),
        'seed': config.get('randomness', {}).get('seed'),
        'extra': {'checkpoint_sha256': digest},
    }
    stem = str(out_dir / f'{subset}_{split}')
    evaluator.update(result_file=f'{stem}.json', coco_json_prefix=stem, identity=identity)
    # Nothing is trained here, so nothing of training is built.
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'val_dataloader', 'val_cfg', 'val_evaluator'):
        config[key] = None
    config.param_scheduler = None
    config.auto_scale_lr = None
    config.load_from = None
    config.resume = False
    return config


def selftest(config: Config, subset: str, split: str) -> int:
    """Send the ground truth of a few images through the evaluation as predictions; it must score 1.0.

    Args:
        config: Its test loader's data set is used.
        subset: Folder name of the subset.
        split: ``val`` or ``test``.

    Returns:
        How many images were used.

    Raises:
        InputError: It scores less; the message names the step that lost it.
    """
    init_default_scope(config.default_scope)
    dataset = DATASETS.build({**config.test_dataloader.dataset, 'subset': subset, 'split': split})
    return run_selftest(dataset, dataset.ground_truth.load(), load_annotations={'type': 'LoadPolygons'})


def evaluate(config: Config, checkpoint: Path, subsets: Sequence[str], split: str, out_dir: Path) -> dict[str, Result]:
    """Evaluate a checkpoint on each subset: one model, loaded once.

    Args:
        config: The config; its data root decides where the subsets are looked for.
        checkpoint: The checkpoint file.
        subsets: Folder names of the subsets. With several, one that is missing is reported and left out.
        split: ``val`` or ``test``.
        out_dir: Where the result files go.

    Returns:
        The result of each subset that was there; nothing in processes but the first.

    Raises:
        InputError: The only subset, or every one of them, is missing; the checkpoint does not fit the config.
    """
    digest = sha256_of(checkpoint)
    configs = {subset: evaluation_config(config, checkpoint, digest, subset, split, out_dir) for subset in subsets}
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
        except InputError as error:
            if len(subsets) == 1:
                raise
            print_log(f'{subset} is left out: {error}', logger='current')
            continue
        runner._test_loop = loop  # hooks look for it in the runner, which has no public way to give it another
        if len(subsets) > 1:
            _draw_apart(runner, subset)
        with explained_failures(runner):
            loop.run()
        evaluated += 1
        if is_main_process():  # the only one that has it
            results[subset] = loop.evaluator.metrics[0].result
    if not evaluated:
        raise InputError(f'at least one subset must be there, got none of {", ".join(subsets)}')
    runner.call_hook('after_run')
    return results


def _draw_apart(runner: Runner, subset: str) -> None:
    """Let pictures of a subset go to a folder of their own: subsets may share file names."""
    folder = runner.cfg.default_hooks.get('visualization', {}).get('test_out_dir')
    for hook in runner.hooks:
        if folder and isinstance(hook, DetVisualizationHook):
            hook.test_out_dir = os.path.join(folder, subset)
