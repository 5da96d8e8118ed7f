from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import torch

from armbench_mmdet.engine.loops import seed_generators, seed_sample
from armbench_mmdet.hooks.consistency import SeedingHook


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


def runner(rank: int = 0, iteration: int = 0) -> SimpleNamespace:
    return SimpleNamespace(rank=rank, seed=5 + rank, iter=iteration, _randomness_cfg={'diff_rank_seed': True})


def test_samples_iterations_validations_and_ranks_draw_differently() -> None:
    hook = SeedingHook()
    streams = set()
    for seed in (
        lambda: seed_sample(5, 0, 0),
        lambda: hook.before_train_iter(runner(), 0),
        lambda: hook.before_train_iter(runner(iteration=1), 0),
        lambda: hook.before_train_iter(runner(rank=1), 0),
        lambda: hook.before_val(runner()),
    ):
        seed()
        streams.add(tuple(drawn()))
    assert len(streams) == 5
