"""Compiling and running numba kernels."""

import numpy as np
import pytest
import torch
from numba.core.caching import FunctionCache

from armbench_mmdet.jit import compiled, map_threads


@pytest.mark.parametrize('threads', [1, 3])
def test_every_item_once_in_order_and_errors_are_raised(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    assert map_threads(lambda item: item**2, range(20)) == [item**2 for item in range(20)]
    assert map_threads(lambda item: item, []) == []
    with pytest.raises(ZeroDivisionError):
        map_threads(lambda divisor: 1 // divisor, [1, 0])


def test_without_a_folder_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FunctionCache._impl_class, '_locator_classes', [])

    @compiled
    def double(values: np.ndarray) -> np.ndarray:
        return values * 2

    assert double(np.ones(2)).tolist() == [2, 2]
