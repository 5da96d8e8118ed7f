from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from armbench_mmdet.engine.seeds import seed_generators, seed_sample
from armbench_mmdet.hooks.seeding import SeedingHook


def drawn() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002


def test_a_key_gives_one_stream_and_another_key_another() -> None:
    seed_generators(0, 1, 2)
    first = drawn()
    for key in [(0, 1, 3), (0, 2, 1), (1, 1, 2), (0, 1)]:
        seed_generators(*key)
        assert not set(drawn()) & set(first), key
    seed_generators(0, 1, 2)
    assert drawn() == first
    assert len(set(first)) == 3  # nor do the generators repeat one another


def test_samples_and_iterations_do_not_share_streams() -> None:
    class Runner:
        seed, rank, iter, _randomness_cfg = 0, 0, 0, {}

    hook = SeedingHook()
    streams = []
    for seed in (
        lambda: seed_sample(0, 0, 0),
        lambda: hook.before_train_iter(Runner(), 0),
        lambda: hook.before_val(Runner()),
    ):
        seed()
        streams.append(tuple(drawn()))
    assert len(set(streams)) == 3


def test_ranks_draw_differently_from_one_seed() -> None:
    class Runner:
        iter, _randomness_cfg = 7, {'diff_rank_seed': True}

        def __init__(self, rank: int) -> None:
            self.rank, self.seed = rank, 5 + rank  # as mmengine sets it then

    streams = []
    for rank in (0, 1):
        SeedingHook().before_train_iter(Runner(rank), 0)
        streams.append(drawn())
    assert streams[0] != streams[1]


def test_a_negative_key_is_an_error() -> None:
    with pytest.raises(ValueError, match='negative'):
        seed_generators(-1)
