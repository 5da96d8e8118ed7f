"""The runner: its console, hooks, loops and levers, and how its failures are explained."""

import itertools
import logging
import pickle
import random
import runpy
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import OPTIM_WRAPPERS, init_default_scope
from mmengine.runner import EpochBasedTrainLoop
from torch import nn
from torch.utils.data import BatchSampler
from toy_run import Fit, Points, guarded_runner, run, toy_config

from armbench_mmdet import configs
from armbench_mmdet.datasets.images import note_image
from armbench_mmdet.engine import ArmbenchRunner, levers
from armbench_mmdet.engine.failure import explained_failures
from armbench_mmdet.engine.levers import set_levers, use_levers
from armbench_mmdet.engine.loops import Draw, PositionedBatches, SeededSamples, resumable
from armbench_mmdet.engine.runner import ConsoleFormatter, is_shown
from armbench_mmdet.errors import InputError, UnreadableImageError
from armbench_mmdet.hooks.resume import SeedingHook


@pytest.mark.parametrize(
    ('path', 'level', 'message', 'is_noise'),
    [
        ('/lib/mmengine/runner.py', logging.WARNING, 'the checkpoint is old', False),
        ('/lib/mmengine/runner.py', logging.ERROR, 'out of disk', False),
        ('/lib/mmdet/datasets/__init__.py', logging.WARNING, 'Could not import OneDL. Skipping', True),
    ],
)
def test_of_the_stacks_warnings_the_real_ones_are_shown(path: str, level: int, message: str, is_noise: bool) -> None:
    record = logging.LogRecord('mmengine', level, path, 1, message, None, None)
    assert is_shown(record) is not is_noise
    assert ConsoleFormatter().format(record) == f'{logging.getLevelName(level).lower()}: {message}'


RUNTIME = Path(__file__).parents[2] / 'configs/_base_/default_runtime.py'
HOOKS: dict[str, Any] = runpy.run_path(str(RUNTIME))['default_hooks']
NEED_IMAGES = ('visualization', 'num_class_check', 'validation_loss', 'self_test')
OTHERS = [name for name in HOOKS if name not in NEED_IMAGES]


def hooks_of(work_dir: Path, *options: str) -> list[str]:
    """The hooks of a toy run with every default hook that does not need images, in their order."""
    config = toy_config(work_dir)
    config.custom_hooks = []
    config.default_hooks = Config({name: HOOKS[name] for name in OTHERS})._cfg_dict | config.default_hooks
    config.train_cfg.update(max_iters=2, val_interval=2)
    config.merge_from_dict(configs.parse_options(options))
    runner = run(config)
    assert runner.iter == 2
    return [type(hook).__name__ for hook in runner.hooks]


@pytest.mark.parametrize('option', [f'{name}.enabled=False' for name in OTHERS] + ['timer=None', 'seeding=None'])
def test_every_hook_can_be_switched_off_alone(option: str, tmp_path: Path) -> None:
    kind = HOOKS[option.partition('.')[0].partition('=')[0]]['type']
    assert kind not in hooks_of(tmp_path, f'default_hooks.{option}')


def test_hooks_come_in_the_order_that_they_need(tmp_path: Path) -> None:
    order = hooks_of(tmp_path)
    assert order[-3:] == ['InterruptionHook', 'RunRecordHook', 'ResumeHook']
    assert order.index('AtomicCheckpointHook') < order.index('InterruptionHook')
    assert order.index('RuntimeInfoHook') < order.index('LossGuardHook') < order.index('LoggerHook')


class Numbers:
    """Each sample says its index and a random number."""

    switch = 'off'

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, random.random()


@pytest.mark.parametrize('sampler', [InfiniteSampler, DefaultSampler])
def test_processes_share_out_one_stream(sampler: type, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(rank: int, processes: int, count: int) -> list[Draw]:
        for module in ('armbench_mmdet.engine.loops', 'mmengine.dataset.sampler'):
            monkeypatch.setattr(f'{module}.get_dist_info', lambda: (rank, processes))
        batches = PositionedBatches(BatchSampler(sampler(range(8), seed=0), 2, False), is_endless=True)
        return [draw for batch in itertools.islice(batches, count) for draw in batch]

    alone = stream(0, 1, 8)
    assert len(set(alone)) == 16
    assert set(stream(0, 2, 4)) | set(stream(1, 2, 4)) == set(alone)


def test_no_batches_is_an_error_and_no_endless_search() -> None:
    positioned = PositionedBatches(BatchSampler(DefaultSampler(range(1), seed=0), 2, True), True)
    with pytest.raises(InputError, match='at least one batch'):
        next(iter(positioned))


def test_samples_iterations_validations_and_processes_draw_differently_and_always_the_same() -> None:
    def runner(rank: int = 0, iteration: int = 0) -> Any:
        return SimpleNamespace(rank=rank, seed=5 + rank, iter=iteration, _randomness_cfg={'diff_rank_seed': True})

    samples, hook = SeededSamples(Numbers(), seed=5), SeedingHook()
    actions = [
        lambda: samples[Draw(0, 0, 0)],
        lambda: samples[Draw(0, 0, 1)],
        lambda: samples[Draw(0, 1, 0)],
        lambda: SeededSamples(Numbers(), seed=4)[Draw(0, 0, 0)],
        lambda: hook.before_train_iter(runner(), 0),
        lambda: hook.before_train_iter(runner(iteration=1), 0),
        lambda: hook.before_train_iter(runner(rank=1), 0),
        lambda: hook.before_val(runner()),
    ]
    drawn = []
    for seed in [*actions, *actions]:
        seed()
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))  # noqa: NPY002
    assert drawn[:8] == drawn[8:]
    assert len({number for numbers in drawn for number in numbers}) == 24, 'nor do the generators repeat one another'


def test_it_is_the_data_set_in_all_else() -> None:
    numbers = Numbers()
    samples = SeededSamples(numbers, seed=0)
    samples.switch = 'on'  # as mmdet's hooks replace a pipeline
    assert (numbers.switch, samples.switch, len(samples), samples[1][0]) == ('on', 'on', 7, 1)
    assert pickle.loads(pickle.dumps(samples))[1][0] == 1
    assert not hasattr(samples, 'metainfo')
    assert not hasattr(samples, '__getitems__')


@pytest.mark.parametrize(
    ('settings', 'kind'),
    [
        ({'type': 'mmengine.IterBasedTrainLoop', 'max_iters': 3}, 'ResumableIterLoop'),
        ({'type': EpochBasedTrainLoop, 'max_epochs': 3}, 'ResumableEpochLoop'),
        ({'by_epoch': True, 'max_epochs': 3}, 'ResumableEpochLoop'),
        ({'by_epoch': False, 'max_iters': 3}, 'ResumableIterLoop'),
        ({'type': 'SomebodysLoop'}, 'SomebodysLoop'),
    ],
)
def test_mmengines_loops_are_replaced(settings: dict[str, Any], kind: str) -> None:
    kept = {key: value for key, value in settings.items() if key not in ('type', 'by_epoch')}
    assert resumable(settings) == {'type': kind, **kept}


def config(**chosen: Any) -> Config:
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1))
    return Config(dict(optim_wrapper=wrapper, test_cfg=dict(type='TestLoop'), **chosen))


def backbone_and_neck(**chosen: Any) -> nn.Module:
    """Two parts of a detector with the same weights each time."""
    init_default_scope('mmdet')
    two_stages = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
    torch.manual_seed(0)
    parts = nn.Module()
    parts.backbone = MODELS.build(dict(type='FoldedResNet', depth=18, base_channels=4, stem_channels=4, **two_stages))
    parts.neck = MODELS.build(dict(type='FPN', in_channels=[4, 8], out_channels=8, num_outs=2))
    use_levers(parts, chosen)
    return parts.eval()


@pytest.mark.parametrize('name', ['channels_last', pytest.param('compile', marks=pytest.mark.slow)])
def test_a_lever_changes_speed_and_neither_weights_nor_outputs(name: str) -> None:
    plain, faster = backbone_and_neck(), backbone_and_neck(**{name: True})
    torch.testing.assert_close(faster.state_dict(), plain.state_dict(), rtol=0, atol=0)
    image = torch.randn(2, 3, 64, 96)
    if name == 'channels_last':
        assert faster.backbone(image)[0].is_contiguous(memory_format=torch.channels_last)
    for found, expected in zip(faster.neck(faster.backbone(image)), plain.neck(plain.backbone(image)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('chosen', 'said'),
    [(dict(chanels_last=True), 'must be channels_last and compile, got chanels_last'), (dict(compile=True), 'C\\+\\+')],
)
def test_levers_that_cannot_be_pulled(chosen: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(InputError, match=said):
        use_levers(nn.Linear(1, 1), chosen)


@pytest.mark.parametrize(
    ('gpu', 'bfloat16', 'wrapper'),
    [(True, False, 'AmpOptimWrapper'), (False, True, 'BFloat16OptimWrapper'), (False, False, None)],
)
def test_the_command_line_adds_to_what_a_config_chose(
    gpu: bool, bfloat16: bool, wrapper: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(levers, 'has_bfloat16', lambda: bfloat16)
    trained, tested = config(levers=dict(compile=True)), config()
    set_levers(trained, amp=False, channels_last=True, compiled=False, training=True)
    assert trained.to_dict() == config(levers=dict(compile=True, channels_last=True)).to_dict()
    if wrapper is None:
        with pytest.raises(InputError, match='--amp must have a GPU, or a CPU with bfloat16'):
            set_levers(trained, amp=True, channels_last=False, compiled=False, training=True)
        return
    set_levers(trained, amp=True, channels_last=False, compiled=False, training=True)
    set_levers(tested, amp=True, channels_last=False, compiled=False)
    assert (trained.optim_wrapper.type, trained.optim_wrapper.optimizer.lr) == (wrapper, 1)
    assert 'fp16' not in trained.test_cfg
    assert tested.test_cfg.fp16
    assert tested.optim_wrapper == config().optim_wrapper


def test_bfloat16_is_of_the_forward_pass_alone() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = OPTIM_WRAPPERS.build(dict(type='BFloat16OptimWrapper', optimizer=optimizer))
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        output = model(torch.ones(1, 3))
    assert output.dtype == torch.bfloat16
    wrapper.update_params(output.float().sum())
    assert model.weight.dtype == torch.float32
    assert (model.weight < before).all()


def message_of(runner: ArmbenchRunner) -> str:
    """What a user reads of a run that fails."""
    with pytest.raises(InputError) as caught, explained_failures(runner):
        runner.train()
    return str(caught.value)


GPU_IS_FULL = torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB.\nmore')
LOST = 'Another process of this run has ended'


@pytest.mark.parametrize(
    ('fail', 'said'),
    [
        (lambda: torch.empty(2**60, dtype=torch.uint8), 'allocate'),
        (Mock(side_effect=GPU_IS_FULL), 'Tried to allocate 20.00 GiB.\n'),
        (Mock(side_effect=RuntimeError('[gloo/gloo/transport/tcp/pair.cc:537] Connection reset by peer')), LOST),
        (Mock(side_effect=torch.distributed.DistBackendError('NCCL communicator was aborted')), LOST),
    ],
    ids=['memory', 'memory of a GPU', 'gloo', 'nccl'],
)
def test_a_failing_step_says_what_happened_and_on_which_batch(tmp_path: Path, fail: Callable, said: str) -> None:
    calls = itertools.count(1)
    model = Fit(on_forward=lambda: next(calls) == 3 and fail())
    message = message_of(guarded_runner(tmp_path, batch_size=2, model=model))
    assert said in message
    images = [f'images/{index}.jpg (30×20 px, {index} instances)' for index in (4, 5)]
    for part in ('at iteration 3', *images, 'train_dataloader.batch_size', 'accumulative_counts', '--amp'):
        assert (part in message) is (said != LOST)


@pytest.mark.parametrize('name', ['SIGKILL', 'SIGBUS', 'SIGSEGV'])
def test_data_loading_process_that_dies_names_its_image(tmp_path: Path, name: str) -> None:
    def load(index: int) -> None:
        note_image(index, f'images/{index}.jpg')
        if index == 3:
            signal.raise_signal(getattr(signal, name))

    message = message_of(guarded_runner(tmp_path, data=Points(on_load=load), num_workers=1))
    assert message.startswith('A data-loading process died')
    assert 'image images/3.jpg (index 3)' in message
    assert 'num_workers' in message


def test_unreadable_image_in_a_data_loading_process_is_one_message(tmp_path: Path) -> None:
    said = 'image must be readable, got a broken one (in images/2.jpg)\nsecond line'
    data = Points(on_load=Mock(side_effect=[None, None, UnreadableImageError(said)]))
    assert message_of(guarded_runner(tmp_path, data=data, num_workers=1)) == said
