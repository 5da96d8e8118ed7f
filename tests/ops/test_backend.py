"""The choice of a backend, by operator, device, environment and what imports; kernels of numba, and threads."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numba.core.caching import FunctionCache

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import compiled, map_threads
from armbench_mmdet.ops.backend import BACKEND_VARIABLE, choose_backend, torchvision_problem

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Make torchvision importable, or not, and ask for a backend."""

    def prepare(requested: str | None = None, has_torchvision: bool = True) -> None:
        monkeypatch.setitem(sys.modules, 'torchvision', ModuleType('torchvision') if has_torchvision else None)
        monkeypatch.setenv(BACKEND_VARIABLE, requested or '')
        torchvision_problem.cache_clear()

    yield prepare
    torchvision_problem.cache_clear()


CHOICES = [  # requested, whether torchvision imports, operator, device, expected
    (None, True, 'nms', CPU, 'torchvision'),
    (None, True, 'roi_align', CUDA, 'torchvision'),
    (None, True, 'roi_align', CPU, 'numba'),
    (None, True, 'ms_deform_attn', CPU, 'numba'),
    (None, True, 'ms_deform_attn', CUDA, 'torch'),
    (None, False, 'nms', CPU, 'numba'),
    (None, False, 'nms', CUDA, 'torch'),
    (None, False, 'roi_align', CUDA, 'torch'),
    ('auto', True, 'nms', CPU, 'torchvision'),
    ('numba', True, 'nms', CPU, 'numba'),
    ('numba', True, 'roi_align', CUDA, 'torch'),
    ('torch', True, 'nms', CPU, 'torch'),
    ('torch', True, 'roi_align', CPU, 'torch'),
]


def test_choice(install: Callable[..., None]) -> None:
    for requested, has_torchvision, operator, device, expected in CHOICES:
        install(requested, has_torchvision)
        assert choose_backend(operator, device) == expected, (requested, has_torchvision, operator, device)


def test_deterministic_algorithms_exclude_torchvision_on_cuda(install: Callable[..., None]) -> None:
    install()
    torch.use_deterministic_algorithms(True)
    try:
        assert [choose_backend('roi_align', device) for device in (CUDA, CPU)] == ['torch', 'numba']
    finally:
        torch.use_deterministic_algorithms(False)


def test_unknown_backend(install: Callable[..., None]) -> None:
    install('cuda')
    with pytest.raises(InputError, match=r"ARMBENCH_OPS_BACKEND must be one of \('auto', .*got 'cuda'"):
        choose_backend('nms', CPU)


@pytest.mark.parametrize('error', ["ImportError('no')", "RuntimeError('no operator')", "OSError('undefined symbol')"])
def test_backend_that_does_not_import(error: str, install: Callable[..., None], tmp_path: Path, monkeypatch) -> None:
    install('torchvision')
    monkeypatch.delitem(sys.modules, 'torchvision')
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'torchvision.py').write_text(f'raise {error}\n')
    reason = error.split("'")[1]
    with pytest.raises(InputError, match=f"imports here, got 'torchvision'.*{reason}"):
        choose_backend('nms', CPU)


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
