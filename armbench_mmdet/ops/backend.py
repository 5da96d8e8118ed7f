"""The choice of an operator's implementation: torchvision's, the numba kernels, or plain torch."""

import functools
import importlib
import os

import torch
from torch import Tensor

from armbench_mmdet.errors import InputError

BACKEND_VARIABLE = 'ARMBENCH_OPS_BACKEND'
BACKENDS = ('torchvision', 'numba', 'torch')


@functools.cache
def torchvision_problem() -> str | None:
    """Return why torchvision does not import on this machine, or None where it does."""
    try:
        importlib.import_module('torchvision')
    # Beside a torch it was not built for, it fails with RuntimeError or OSError, not ImportError.
    except (ImportError, RuntimeError, OSError) as error:
        return f'{type(error).__name__}: {error}'
    return None


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
    if name == 'torchvision' and (problem := torchvision_problem()):
        raise InputError(
            f'{BACKEND_VARIABLE} must be a backend that imports here, got {name!r} (in the environment): {problem}. '
            f'Install it, or unset the variable.'
        )
    return name


def choose_backend(operator: str, device: torch.device) -> str:
    """Return the backend that runs an operator on a device: the one asked for, or the next that has it there.

    The numba kernels are for CPUs; ``torch`` has everything, everywhere.

    Args:
        operator: ``nms``, ``roi_align`` or ``ms_deform_attn``.
        device: Where the tensors lie.

    Raises:
        InputError: The environment asks for a backend that cannot be had.
    """
    requested, is_cpu = requested_backend(), device.type == 'cpu'
    # Torchvision's RoIAlign takes five times as long as the numba kernel on a CPU; on CUDA it sums gradients with
    # atomic additions, in an order that changes from run to run.
    is_fit = not is_cpu and not torch.are_deterministic_algorithms_enabled()
    has_it = operator == 'nms' or (operator == 'roi_align' and is_fit)
    if has_it and requested in (None, 'torchvision') and torchvision_problem() is None:
        return 'torchvision'
    return 'numba' if is_cpu and requested != 'torch' else 'torch'


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor without its gradient and in at least single precision, as all operators compute."""
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).detach()
