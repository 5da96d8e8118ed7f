"""Compiling and running numba kernels."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from armbench_mmdet.ops.jit import run_tasks


@pytest.mark.parametrize('threads', [1, 3])
def test_every_task_runs_once(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    counts = np.zeros(10, np.int64)

    def kernel(index: int, step: int) -> None:
        counts[index] += step

    run_tasks(kernel, ((index, 2) for index in range(10)))
    assert counts.tolist() == [2] * 10


@pytest.mark.parametrize('threads', [1, 3])
def test_error_in_a_task_is_raised(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    with pytest.raises(ZeroDivisionError):
        run_tasks(lambda divisor: 1 // divisor, [(1,), (0,)])


@pytest.mark.slow
def test_without_a_folder_for_the_cache(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import numba.core.caching as caching
        caching._CacheImpl._locator_classes = []
        import numpy as np
        from armbench_mmdet.ops.jit import compiled

        @compiled
        def double(values):
            return values * 2

        print(double(np.ones(2)))
        """
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert result.stdout.strip().endswith('[2. 2.]'), result.stderr
