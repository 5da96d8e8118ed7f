"""The choice of an operator's implementation: torchvision's, the numba kernels, or plain torch."""

import functools
import importlib
import os

import torch

from armbench_mmdet.errors import InputError

BACKEND_VARIABLE = 'ARMBENCH_OPS_BACKEND'
BACKENDS = ('torchvision', 'numba', 'torch')
"""In order of preference."""


@functools.cache
def import_problem(backend: str) -> str | None:
    """Return why a backend does not import on this machine, or None where it does."""
    try:
        importlib.import_module(backend)
    # Beside a torch it was not built for, torchvision fails with RuntimeError or OSError, not ImportError.
    except (ImportError, RuntimeError, OSError) as error:
        return f'{type(error).__name__}: {error}'
    return None


def unavailable_backends() -> dict[str, str]:
    """Return the backends that do not import on this machine, each with the reason."""
    return {name: problem for name in BACKENDS if (problem := import_problem(name))}


def requested_backend() -> str | None:
    """Return the backend that the environment asks for, or None for the automatic choice.

    Raises:
        InputError: The variable names no backend, or one that does not import here.
    """
    name = os.environ.get(BACKEND_VARIABLE, '').strip().lower()
    if name in ('', 'auto'):
        return None
    if name not in BACKENDS:
        raise InputError(f'{BACKEND_VARIABLE} must be one of {("auto", *BACKENDS)}, got {name!r} (in the environment)')
    if problem := import_problem(name):
        raise InputError(
            f'{BACKEND_VARIABLE} must be a backend that imports here, got {name!r} (in the environment): {problem}. '
            f'Install it, or unset the variable.'
        )
    return name


def _serves(backend: str, operator: str, device: torch.device) -> bool:
    if backend == 'torchvision':
        # Its RoIAlign takes five times as long as the numba kernel on a CPU; on CUDA it sums gradients with atomic
        # additions, in an order that changes from run to run.
        fit = device.type == 'cuda' and not torch.are_deterministic_algorithms_enabled()
        return operator == 'nms' or (operator == 'roi_align' and fit)
    if backend == 'numba':
        return device.type == 'cpu'
    return True


def choose_backend(operator: str, device: torch.device) -> str:
    """Return the backend that runs an operator on a device.

    A backend asked for through the environment comes first; where it has no such operator, or does not run on the
    device, the ones after it in :data:`BACKENDS` follow. ``torch`` has everything, everywhere.

    Args:
        operator: ``nms``, ``roi_align`` or ``ms_deform_attn``.
        device: Where the tensors lie.

    Raises:
        InputError: The environment asks for a backend that cannot be had.
    """
    first = BACKENDS.index(requested_backend() or BACKENDS[0])
    for backend in BACKENDS[first:]:
        if _serves(backend, operator, device) and import_problem(backend) is None:
            return backend
    return 'torch'
