"""From a config to a run: training, testing, and harder tests: several views of an image, corrupted photos."""

import copy
import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from mmdet.registry import DATASETS, OPTIMIZERS, RUNNERS
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, TestLoop
from tabulate import tabulate
from tqdm import tqdm

from armbench_mmdet.configs import LOADERS, dataset_of, leaves, nested, unwrapped
from armbench_mmdet.datasets.ground_truth import METAINFO_KEY
from armbench_mmdet.engine.checkpoints import latest_checkpoint, load_exactly
from armbench_mmdet.engine.failure import explained_config, explained_failures, unknown_type
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.evaluation.result import Result
from armbench_mmdet.files import sha256_of, write_json
from armbench_mmdet.hooks.prediction_pictures import PicturesHook
from armbench_mmdet.hooks.preflight import run_selftest
from armbench_mmdet.run_folder import Corruptions, read_corruptions
from armbench_mmdet.transforms.corruption import CORRUPTIONS, SEVERITIES

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def set_resume(config: Config, resume: str) -> None:
    """Continue an earlier run: ``'auto'`` for the work directory's latest whole checkpoint, or a checkpoint's path.

    Where the work directory has no checkpoint at all, ``'auto'`` starts afresh and says so, as in mmdet.

    Raises:
        InputError: There is nothing to resume from: the path is none, or every checkpoint is damaged.
    """
    folder = Path(config.work_dir)
    if resume == 'auto' and not any(folder.glob('*.pth')):
        print_log(f'--resume: no checkpoint yet in {folder}, the run starts afresh')
        return
    path = latest_checkpoint(folder) if resume == 'auto' else Path(resume)
    if path is None or not path.is_file():
        raise InputError(f'--resume must find a whole checkpoint, got {resume!r} (in {folder}); or leave it out')
    config.resume = True
    config.load_from = str(path)


_COUNTS = ('train_cfg.max_iters', 'train_cfg.max_epochs', 'train_cfg.val_interval', 'optim_wrapper.accumulative_counts')


def make_usable(config: Config) -> None:
    """Refuse values that no run can have, and settle those that go with others, in place.

    Raises:
        InputError: Values are wrong; all of them are listed.
    """
    values = leaves(config._cfg_dict)
    problems = [
        f'{key} must be a whole number of at least 1, got {values[key]}'
        for key in _COUNTS
        if values.get(key, 'None') != 'None' and not (values[key].isdecimal() and int(values[key]))
    ]
    if values.get('auto_scale_lr.enable') == 'True' and 'base_batch_size' not in config.auto_scale_lr:
        problems.append('auto_scale_lr.base_batch_size must be set for --auto-scale-lr, got none')
    for name in LOADERS:
        loader = config.get(name) or {}
        if not isinstance(loader, dict):
            problems.append(f'{name} must be a dict, got {loader!r}')
            continue
        if loader.get('num_workers') == 0:
            loader['persistent_workers'] = False
            loader.pop('prefetch_factor', None)
        for one in nested(loader.get('dataset')):
            if str(one.get('type')).endswith('ConcatDataset'):  # what is joined must have the same metainfo
                ignored = one.get('ignore_keys') or []
                one['ignore_keys'] = [*([ignored] if isinstance(ignored, str) else ignored), METAINFO_KEY]
    wrapper = config.get('optim_wrapper') or {}
    kind = (wrapper.get('optimizer') or {}).get('type')
    if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:  # mmengine says: None is not callable
        problems.append(f'optim_wrapper.optimizer: {unknown_type(kind, OPTIMIZERS.name)}')
    if wrapper.get('type') == 'OptimWrapper':
        for name in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(name, None)
    elif wrapper.get('type') == 'AmpOptimWrapper' and not torch.cuda.is_available():
        problems.append(
            "optim_wrapper.type must be 'OptimWrapper' on a machine without a GPU, got 'AmpOptimWrapper'; leave --amp "
            'out, or give --cfg-options optim_wrapper.type=OptimWrapper where the config asks for mixed precision'
        )
    if problems:
        raise InputError('\n'.join(f'{one} (in {config.filename})' for one in problems))


def build_runner(config: Config) -> Runner:
    """Build the runner the config names, mmengine's own where it names none.

    Raises:
        InputError: The config has values that no run can have, or names what is not there.
    """
    make_usable(config)
    with explained_config():
        return RUNNERS.build(config)


def keep_freed_memory() -> None:
    """Have glibc keep the memory that a step frees for the next one; where the C library is another, do nothing.

    By default large blocks go back to the kernel, whose new, empty pages take up to a tenth of a step on a CPU.
    It holds for the rest of the process, whose peak memory is a few percent higher.
    """
    if sys.platform == 'linux' and hasattr(library := ctypes.CDLL(None), 'mallopt'):
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):  # no blocks of their own, no end given back
            library.mallopt(option, value)


def train(config: Config) -> Runner:
    """Train and return the runner, its last validation done."""
    keep_freed_memory()
    runner = build_runner(config)
    with explained_failures(runner):
        runner.train()
    return runner


def on_data(config: Config, subset: str | None, split: str | None) -> Config:
    """Return a copy of ``config`` that tests on a subset and split; None leaves what it says.

    Raises:
        InputError: The config tests on nothing, or on files of its own.
    """
    config = copy.deepcopy(config)
    dataset = dataset_of(config, 'test_dataloader')
    chosen = {key: value for key, value in (('subset', subset), ('split', split)) if value is not None}
    own = [key for key in ('ann_file', 'dataset', 'datasets') if dataset.get(key)]
    if chosen and own:
        raise InputError(
            f"--subset and --split choose one of ARMBench's files; got {chosen} where test_dataloader.dataset has its "
            f'own {own[0]} (in {config.filename}); leave them out'
        )
    dataset.update(chosen)
    return config


def selftest(config: Config, subset: str | None, split: str | None) -> str:
    """Send the ground truth of a few images through the evaluation as predictions; says that it scored 1.0.

    Raises:
        InputError: It scores less; the message names the step that lost it.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    with explained_config():
        dataset = DATASETS.build(on_data(config, subset, split).test_dataloader.dataset)
    source = dataset.ground_truth
    done = run_selftest(dataset, source.load())
    return f'{source.subset} {source.split}: the {done}'


def tester(config: Config, checkpoint: Path) -> Runner:
    """Build a runner that tests a checkpoint; ``config`` loses what is of training, so that none of it is built.

    Raises:
        InputError: The checkpoint does not fit the config.
    """
    of_training = ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr', 'load_from')
    config.update(dict.fromkeys((*of_training, 'val_dataloader', 'val_cfg', 'val_evaluator')), resume=False)
    runner = build_runner(config)
    load_exactly(runner.model, checkpoint, str(config.filename), bool(config.get('trust_checkpoint', False)))
    runner.call_hook('before_run')
    return runner


def test_loop(runner: Runner, config: Config) -> tuple[TestLoop, ArmbenchMetric]:
    """Give a runner the test loop of a config, and return it with its metric.

    Raises:
        InputError: The data cannot be read, or the evaluator has no ``ArmbenchMetric``.
    """
    parts = {'dataloader': config.test_dataloader, 'evaluator': config.test_evaluator}
    with explained_config():
        loop = runner.build_test_loop({'type': 'TestLoop', **config.test_cfg, **parts})
    metric = next((one for one in loop.evaluator.metrics if isinstance(one, ArmbenchMetric)), None)
    if metric is None:
        raise InputError(f'test_evaluator must have an ArmbenchMetric, got none (in {config.filename})')
    runner._test_loop = loop  # hooks look for it in the runner, which has no public way to give it another
    return loop, metric


def evaluate(
    config: Config, checkpoint: Path, subsets: Sequence[str | None], split: str | None, out_dir: Path
) -> dict[str, Result]:
    """Evaluate a checkpoint on each subset (None: the config's) and split: one model, loaded once.

    With several subsets, one that is missing is reported and left out.

    Returns:
        The result of each subset that was there; nothing in processes but the first.

    Raises:
        InputError: The only subset, or every one of them, is missing; the checkpoint does not fit the config; the
            config names a file of its own, and a subset or split is asked for.
    """
    configs = {subset: on_data(config, subset, split) for subset in subsets}
    identity = {
        'config': str(config.filename),
        'checkpoint': str(checkpoint),
        'seed': config.get('randomness', {}).get('seed'),
        'extra': {'checkpoint_sha256': sha256_of(checkpoint)},
    }
    runner = tester(configs[subsets[0]], checkpoint)
    pictures = [(one, one.test_out_dir) for one in runner.hooks if isinstance(one, PicturesHook) and one.test_out_dir]
    results: dict[str, Result] = {}
    left_out = []
    for subset, own in configs.items():
        try:
            loop, metric = test_loop(runner, own)
            metric.write_to(out_dir, identity)
        except InputError as error:
            left_out.append(subset)
            if len(left_out) == len(subsets):
                raise
            print_log(f'{subset} is left out: {error}', logger='current')
            continue
        for hook, folder in pictures if len(subsets) > 1 else ():  # subsets may share file names
            hook.test_out_dir = os.path.join(folder, metric.source.subset)
        with explained_failures(runner):
            loop.run()
        if metric.result is not None:  # only the first process has it
            results[metric.source.subset] = metric.result
    runner.call_hook('after_run')
    return results


def set_tta(config: Config, scales: Sequence[float]) -> None:
    """Test in views of each scale, each as it is and flipped, and merge them (``--tta``); in place.

    Raises:
        InputError: A scale is not positive, there is nothing to test on, or the test pipeline does not resize.
    """
    if not all(scale > 0 for scale in scales):
        raise InputError(f'--tta must have scales above 0, got {list(scales)}')
    for dataset in unwrapped(dataset_of(config, 'test_dataloader')):
        steps = list(dataset.pipeline)
        places = [i for i, step in enumerate(steps) if step['type'].endswith('Resize') and 'scale' in step]
        if not places:
            raise InputError(f'--tta must find a resizing step in the test pipeline, got none (in {config.filename})')
        resize, *others, pack = steps[places[0] :]
        sizes = [{**resize, 'scale': tuple(round(side * scale) for side in resize['scale'])} for scale in scales]
        flips = [{'type': 'LazyRandomFlip', 'prob': prob} for prob in (0.0, 1.0)]
        pack = {**pack, 'meta_keys': (*pack['meta_keys'], 'flip', 'flip_direction')}
        views = [sizes, flips, *([one] for one in others), [pack]]
        dataset.pipeline = [*steps[: places[0]], {'type': 'TestTimeAug', 'transforms': views}]
    config.model = ConfigDict(type='MaskTTAModel', module=config.model)


def evaluate_corrupted(
    config: Config, checkpoint: Path, subset: str | None, split: str | None, out_dir: Path
) -> Corruptions:
    """Evaluate a checkpoint on a subset under every corruption and severity, into ``<subset>_<split>.json``.

    What was measured of the same checkpoint before is kept, so that it goes on where it was stopped.

    Raises:
        InputError: As for :func:`~armbench_mmdet.launch.evaluate`.
    """
    config = on_data(config, subset, split)
    config.test_evaluator = {'type': 'ArmbenchMetric', 'metric': 'segm', 'log_table': False}
    runner = tester(config, checkpoint)

    def scores(corruption: str, severity: int) -> dict[str, float | None]:
        changed = copy.deepcopy(config)
        for dataset in unwrapped(changed.test_dataloader.dataset):
            step = {'type': 'CorruptImage', 'corruption': corruption, 'severity': severity}
            dataset.pipeline.insert(len(dataset.pipeline) - 1, step)
        loop, metric = test_loop(runner, changed)
        with explained_failures(runner):
            loop.run()
        assert metric.result is not None
        segm = metric.result.scores['segm']
        return {name: one.mAP for name, one in segm.by_class.items()}

    _, metric = test_loop(runner, config)
    source, digest = metric.source, sha256_of(checkpoint)
    path = out_dir / f'{source.subset}_{source.split}.json'
    found = read_corruptions(path) if path.is_file() else None
    if found is None or found.checkpoint_sha256 != digest:
        found = Corruptions(
            config=str(config.filename),
            checkpoint_sha256=digest,
            subset=source.subset,
            split=source.split,
            clean=scores(CORRUPTIONS[0], 0),
            corrupted={},
        )
    left = [name for name in CORRUPTIONS if name not in found.corrupted]
    for name in tqdm(left, desc='corruptions', initial=len(CORRUPTIONS) - len(left), total=len(CORRUPTIONS)):
        found.corrupted[name] = [scores(name, severity) for severity in SEVERITIES]
        write_json(path, found)
    runner.call_hook('after_run')
    return found


def corruption_table(found: Corruptions) -> str:
    """The mask mAP of objects under each corruption and severity, and the means of all classes, in percent."""
    rows = [[name, *(100 * (one['object'] or 0) for one in scores)] for name, scores in found.corrupted.items()]
    lines = [tabulate(rows, ['object mask mAP', *map(str, SEVERITIES)], floatfmt='.1f'), '']
    for name, clean in found.clean.items():
        if clean is not None:  # else a class that the subset does not annotate
            mean, share = found.performance(name)
            lines.append(f'{name}: clean {clean:.1%}, under corruption {mean:.1%} ({share:.0%} of it)')
    return '\n'.join(lines)
