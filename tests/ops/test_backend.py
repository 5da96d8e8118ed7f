"""Which backend runs where."""

from __future__ import annotations

import importlib

import pytest
import torch

from armbench_mmdet.errors import InputError
from armbench_mmdet.ops import active_backend
from armbench_mmdet.ops import backend as module

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


@pytest.mark.parametrize(
    ('requested', 'missing', 'operator', 'device', 'expected'),
    [
        (None, [], 'nms', CPU, 'torchvision'),
        (None, [], 'nms_offset', CPU, 'numba'),
        (None, [], 'nms_offset', CUDA, 'torch'),
        (None, [], 'roi_align', CUDA, 'torchvision'),
        (None, [], 'roi_align_max', CPU, 'numba'),
        (None, [], 'ms_deform_attn', CPU, 'torch'),
        (None, ['torchvision'], 'roi_align', CPU, 'numba'),
        (None, ['torchvision'], 'roi_align', CUDA, 'torch'),
        (None, ['torchvision', 'numba'], 'roi_align', CPU, 'torch'),
        ('auto', [], 'nms', CPU, 'torchvision'),
        ('numba', [], 'nms', CPU, 'numba'),
        ('numba', [], 'nms', CUDA, 'torch'),
        ('torch', [], 'nms', CPU, 'torch'),
        ('torchvision', [], 'roi_align_max', CPU, 'numba'),
    ],
)
def test_choice(
    requested: str | None,
    missing: list[str],
    operator: str,
    device: torch.device,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, '_import_problem', lambda name: 'gone' if name in missing else None)
    if requested is None:
        monkeypatch.delenv(module.BACKEND_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(module.BACKEND_VARIABLE, requested)
    assert module.choose_backend(operator, device) == expected


def test_deterministic_algorithms_exclude_torchvision_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, '_import_problem', lambda name: None)
    monkeypatch.setattr(torch, 'are_deterministic_algorithms_enabled', lambda: True)
    assert module.choose_backend('roi_align', CUDA) == 'torch'
    assert module.choose_backend('roi_align', CPU) == 'torchvision'


def test_unknown_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.BACKEND_VARIABLE, 'cuda')
    with pytest.raises(InputError, match=r"ARMBENCH_OPS_BACKEND must be one of \('auto', .*got 'cuda'"):
        module.choose_backend('nms', CPU)


@pytest.mark.parametrize('error', [ImportError('no'), RuntimeError('operator does not exist'), OSError('undefined')])
def test_backend_that_does_not_import(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, 'import_module', broken)
    module._import_problem.cache_clear()
    try:
        monkeypatch.setenv(module.BACKEND_VARIABLE, 'torchvision')
        with pytest.raises(InputError, match=f"imports here, got 'torchvision'.*{error}"):
            module.choose_backend('nms', CPU)
        assert str(error) in module.unavailable_backends()['torchvision']
    finally:
        module._import_problem.cache_clear()


def test_active_backend_names_every_operator(backend: str) -> None:
    expected = {'nms': backend, 'roi_align': backend, 'ms_deform_attn': 'torch'}
    assert active_backend() == expected
