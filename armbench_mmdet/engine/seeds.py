"""Random numbers that depend on where training is, and on nothing that happened before."""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.runner import Runner

SAMPLE, TRAINING, VALIDATION = range(3)
"""The first part of every seed: what the numbers are for."""


def run_seed(runner: Runner) -> int:
    """The seed all processes of a run share, whether or not ``diff_rank_seed`` gives each its own."""
    return runner.seed - (runner.rank if runner._randomness_cfg.get('diff_rank_seed') else 0)


def seed_generators(*key: int) -> None:
    """Seed Python, NumPy and torch (the CPU, and the current GPU if one is in use) from non-negative integers.

    Different keys give independent streams (``numpy.random.SeedSequence``). It takes some 30 µs.
    """
    words = np.random.SeedSequence(key).generate_state(3, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(words[1:2].view(np.uint32))  # noqa: NPY002 - what mmcv's transforms draw from
    torch.default_generator.manual_seed(int(words[2]))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(int(words[2]))


def seed_sample(seed: int, epoch: int, position: int) -> None:
    """Seed what the transforms of one sample draw.

    Args:
        seed: Of the run.
        epoch: How often the sampler started anew.
        position: Of the sample in what the sampler has drawn since then, for all processes together.
    """
    seed_generators(seed, SAMPLE, epoch, position)
