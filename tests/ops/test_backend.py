"""The choice of a backend, by operator, device, environment and what imports."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from armbench_mmdet.errors import InputError
from armbench_mmdet.ops import active_backend, unavailable_backends
from armbench_mmdet.ops.backend import BACKEND_VARIABLE, choose_backend, import_problem

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Make every backend importable but some, and ask for one."""

    def prepare(*missing: str, requested: str | None = None) -> None:
        for name in ('torchvision', 'numba'):
            monkeypatch.setitem(sys.modules, name, None if name in missing else ModuleType(name))
        monkeypatch.setenv(BACKEND_VARIABLE, requested or '')
        import_problem.cache_clear()

    yield prepare
    import_problem.cache_clear()


CHOICES = [  # requested, missing, operator, device, expected
    (None, [], 'nms', CPU, 'torchvision'),
    (None, [], 'roi_align', CUDA, 'torchvision'),
    (None, [], 'roi_align', CPU, 'numba'),
    (None, [], 'ms_deform_attn', CPU, 'numba'),
    (None, [], 'ms_deform_attn', CUDA, 'torch'),
    (None, ['torchvision'], 'nms', CPU, 'numba'),
    (None, ['torchvision'], 'roi_align', CUDA, 'torch'),
    (None, ['torchvision', 'numba'], 'roi_align', CPU, 'torch'),
    ('auto', [], 'nms', CPU, 'torchvision'),
    ('numba', [], 'nms', CPU, 'numba'),
    ('numba', [], 'nms', CUDA, 'torch'),
    ('torch', [], 'nms', CPU, 'torch'),
]


def test_choice(install: Callable[..., None]) -> None:
    for requested, missing, operator, device, expected in CHOICES:
        install(*missing, requested=requested)
        assert choose_backend(operator, device) == expected, (requested, missing, operator, device)


def test_deterministic_algorithms_exclude_torchvision_on_cuda(install: Callable[..., None]) -> None:
    install()
    torch.use_deterministic_algorithms(True)
    try:
        assert [choose_backend('roi_align', device) for device in (CUDA, CPU)] == ['torch', 'numba']
    finally:
        torch.use_deterministic_algorithms(False)


def test_unknown_backend(install: Callable[..., None]) -> None:
    install(requested='cuda')
    with pytest.raises(InputError, match=r"ARMBENCH_OPS_BACKEND must be one of \('auto', .*got 'cuda'"):
        choose_backend('nms', CPU)


@pytest.mark.parametrize('error', ["ImportError('no')", "RuntimeError('no operator')", "OSError('undefined symbol')"])
def test_backend_that_does_not_import(
    error: str, install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(requested='torchvision')
    monkeypatch.delitem(sys.modules, 'torchvision')
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'torchvision.py').write_text(f'raise {error}\n')
    reason = error.split("'")[1]
    with pytest.raises(InputError, match=f"imports here, got 'torchvision'.*{reason}"):
        choose_backend('nms', CPU)
    assert reason in unavailable_backends()['torchvision']


def test_active_backend_names_every_operator(backend: str) -> None:
    other = 'torch' if backend == 'torch' else 'numba'
    assert active_backend() == {'nms': backend, 'roi_align': other, 'ms_deform_attn': other}
