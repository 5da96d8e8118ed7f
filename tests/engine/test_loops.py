"""Random numbers and batches by their place; that resumed runs are the same is in hooks/test_resume.py."""

import pickle
import random
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import BatchSampler

from armbench_mmdet.engine.loops import Draw, PositionedBatches, SeededSamples, resumable
from armbench_mmdet.errors import InputError
from armbench_mmdet.hooks.resume import SeedingHook


class Numbers:
    """Each sample says its index and a random number."""

    switch = 'off'

    def __init__(self, size: int = 7) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, random.random()


@pytest.mark.parametrize('sampler', [InfiniteSampler, DefaultSampler])
def test_processes_share_out_one_stream(sampler: type, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(rank: int, processes: int, count: int) -> list[tuple[int, int]]:
        for module in ('armbench_mmdet.engine.loops', 'mmengine.dataset.sampler'):
            monkeypatch.setattr(f'{module}.get_dist_info', lambda: (rank, processes))
        batches = PositionedBatches(BatchSampler(sampler(Numbers(8), seed=0), 2, False), is_endless=True)
        return [(draw.sample, draw.epoch, draw.position) for batch in islice(batches, count) for draw in batch]

    alone = stream(0, 1, 8)
    assert len(set(alone)) == 16
    assert set(stream(0, 2, 4)) | set(stream(1, 2, 4)) == set(alone)


def test_no_batches_is_an_error_and_no_endless_search() -> None:
    positioned = PositionedBatches(BatchSampler(DefaultSampler(Numbers(1), seed=0), 2, True), True)
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
        ({'type': 'EpochBasedTrainLoop', 'max_epochs': 3}, 'ResumableEpochLoop'),
        ({'type': 'mmengine.IterBasedTrainLoop', 'max_iters': 3}, 'ResumableIterLoop'),
        ({'type': EpochBasedTrainLoop, 'max_epochs': 3}, 'ResumableEpochLoop'),
        ({'type': IterBasedTrainLoop, 'max_iters': 3}, 'ResumableIterLoop'),
        ({'by_epoch': True, 'max_epochs': 3}, 'ResumableEpochLoop'),
        ({'by_epoch': False, 'max_iters': 3}, 'ResumableIterLoop'),
        ({'type': 'SomebodysLoop'}, 'SomebodysLoop'),
    ],
)
def test_mmengines_loops_are_replaced(settings: dict[str, Any], kind: str) -> None:
    kept = {key: value for key, value in settings.items() if key not in ('type', 'by_epoch')}
    assert resumable(settings) == {'type': kind, **kept}
