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


def stream(sampler: Any, is_endless: bool, epoch: int = 0, first: int = 0, count: int = 9) -> list[list[Draw]]:
    positioned = PositionedBatches(BatchSampler(sampler, 2, False), is_endless)
    positioned.start_at(epoch, first)
    return list(islice(positioned, count))


@pytest.mark.parametrize('sampler', [InfiniteSampler, DefaultSampler])
@pytest.mark.parametrize('first', [1, 4, 7])
def test_starting_later_gives_the_rest(sampler: type, first: int) -> None:
    whole = stream(sampler(Numbers(), seed=0), True, count=12)
    assert stream(sampler(Numbers(), seed=0), True, first=first, count=12 - first) == whole[first:]
    assert len({(draw.epoch, draw.position) for batch in whole for draw in batch}) == sum(map(len, whole))


def test_an_epoch_ends_and_the_next_is_shuffled_anew() -> None:
    first, second = (stream(DefaultSampler(Numbers(), seed=0), False, epoch) for epoch in (0, 1))
    assert [len(batch) for batch in first] == [2, 2, 2, 1]
    assert [draw.sample for batch in first for draw in batch] != [draw.sample for batch in second for draw in batch]
    assert stream(DefaultSampler(Numbers(), seed=0), False, 1, first=3) == second[3:]
    assert stream(DefaultSampler(Numbers(), seed=0), False, 1, first=4) == []


def test_processes_share_out_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = {draw for batch in stream(InfiniteSampler(Numbers(), seed=0), True, count=6) for draw in batch}
    shares = set()
    for rank in (0, 1):
        for module in ('armbench_mmdet.engine.loops', 'mmengine.dataset.sampler'):
            monkeypatch.setattr(f'{module}.get_dist_info', lambda rank=rank: (rank, 2))
        shares |= {draw for batch in stream(InfiniteSampler(Numbers(), seed=0), True, count=3) for draw in batch}
    assert {(draw.sample, draw.position) for draw in shares} == {(draw.sample, draw.position) for draw in alone}


def test_no_batches_is_an_error_and_no_endless_search() -> None:
    positioned = PositionedBatches(BatchSampler(DefaultSampler(Numbers(1), seed=0), 2, True), True)
    with pytest.raises(InputError, match='at least one batch'):
        next(iter(positioned))


def test_a_sample_depends_on_its_draw_alone() -> None:
    samples = SeededSamples(Numbers(), seed=3)
    first = samples[Draw(2, 0, 5)]
    random.random()
    assert samples[Draw(2, 0, 5)] == first
    assert pickle.loads(pickle.dumps(samples))[Draw(2, 0, 5)] == first
    others = [samples[Draw(2, 0, 6)], samples[Draw(2, 1, 5)], SeededSamples(Numbers(), seed=4)[Draw(2, 0, 5)]]
    assert len({first, *others}) == 4


def test_samples_iterations_validations_and_processes_draw_differently() -> None:
    def runner(rank: int = 0, iteration: int = 0) -> Any:
        return SimpleNamespace(rank=rank, seed=5 + rank, iter=iteration, _randomness_cfg={'diff_rank_seed': True})

    samples, hook = SeededSamples(Numbers(), seed=5), SeedingHook()
    actions = [
        lambda: samples[Draw(0, 0, 0)],
        lambda: hook.before_train_iter(runner(), 0),
        lambda: hook.before_train_iter(runner(iteration=1), 0),
        lambda: hook.before_train_iter(runner(rank=1), 0),
        lambda: hook.before_val(runner()),
    ]
    drawn = []
    for seed in [*actions, *actions]:
        seed()
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))  # noqa: NPY002
    assert drawn[:5] == drawn[5:]
    assert len({number for numbers in drawn for number in numbers}) == 15, 'nor do the generators repeat one another'


def test_it_is_the_data_set_in_all_else() -> None:
    numbers = Numbers()
    samples = SeededSamples(numbers, seed=0)
    samples.switch = 'on'  # as mmdet's hooks replace a pipeline
    assert (numbers.switch, samples.switch, len(samples), samples[1][0]) == ('on', 'on', 7, 1)
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
    assert resumable(built := object()) is built
    replaced = resumable(settings)
    assert replaced.pop('type') == kind
    assert replaced == {key: value for key, value in settings.items() if key not in ('type', 'by_epoch')}
