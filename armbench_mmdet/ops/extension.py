"""The stand-in for ``mmcv._ext``, mmcv's compiled extension.

``mmcv.ops`` imports ``mmcv._ext`` and asks it for some hundred functions by name. The package registry's mmcv has no
such module. The stand-in answers for all of them: it has the operators of Mask R-CNN and Mask2Former, and one that
names itself and the way to get it for each of the others.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torch

from armbench_mmdet.ops.backend import BACKEND_VARIABLE, choose_backend, requested_backend
from armbench_mmdet.ops.deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from armbench_mmdet.ops.nms import nms, softnms
from armbench_mmdet.ops.roi_align import roi_align_backward, roi_align_forward

EXTENSION = 'mmcv._ext'
COMPILE_COMMAND = (
    'pip install --no-build-isolation --no-deps --no-cache-dir --force-reinstall --no-binary onedl-mmcv onedl-mmcv'
)
"""Compiles the operators against the torch that is installed; needs a C++ compiler and, on two cores, 25 minutes."""

OPERATORS: dict[str, Callable[..., Any]] = {
    'get_compiler_version': lambda: 'not compiled (operators of armbench_mmdet)',
    'get_compiling_cuda_version': lambda: 'not available',
    'ms_deform_attn_backward': ms_deform_attn_backward,
    'ms_deform_attn_forward': ms_deform_attn_forward,
    'nms': nms,
    'roi_align_backward': roi_align_backward,
    'roi_align_forward': roi_align_forward,
    'softnms': softnms,
}


class StandIn(ModuleType):
    """A module with :data:`OPERATORS`; any other public name is a function that raises when it is called."""

    def __init__(self) -> None:
        super().__init__(EXTENSION, 'Operators of armbench_mmdet in place of the compiled extension.')
        # mmengine asks importlib for this module's spec to learn whether mmcv has operators.
        self.__spec__ = ModuleSpec(EXTENSION, loader=None, origin=__name__)
        self.__dict__.update(OPERATORS)

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        """Return the function for an operator that is not provided."""
        if name.startswith('_'):
            raise AttributeError(f'module {EXTENSION!r} has no attribute {name!r}')

        def missing(*args: object, **kwargs: object) -> NoReturn:
            raise NotImplementedError(
                f'mmcv operator {name!r} is not provided without compiling: armbench_mmdet has NMS, soft NMS, '
                f'RoIAlign and multi-scale deformable attention. Compile mmcv to get it: {COMPILE_COMMAND}'
            )

        missing.__name__ = name
        return missing


def _compiled_extension_loads() -> bool:
    """Import the compiled extension if there is one.

    Raises:
        ImportError: It is there and does not load.
    """
    if EXTENSION in sys.modules:
        return not isinstance(sys.modules[EXTENSION], StandIn)
    if importlib.util.find_spec(EXTENSION) is None:
        return False
    try:
        importlib.import_module(EXTENSION)
    except (ImportError, OSError) as error:
        raise ImportError(
            f'the compiled extension {EXTENSION} does not load beside torch {torch.__version__}; it was most likely '
            f'compiled for another version ({error}). Compile it again: {COMPILE_COMMAND} — or do without it: set '
            f'{BACKEND_VARIABLE} to numba or torch.'
        ) from error
    return True


def provide() -> bool:
    """Put the stand-in in place if the compiled extension is missing, and say whether it is in place.

    Naming a backend in the environment is the way to prefer the stand-in over an extension that exists. Modules of
    ``mmcv.ops`` that have already been imported keep the extension that they have.

    Raises:
        ImportError: mmcv is not installed, or its extension is there and does not load.
        InputError: The environment asks for a backend that cannot be had.
    """
    if requested_backend() is None and _compiled_extension_loads():
        return False
    if not isinstance(sys.modules.get(EXTENSION), StandIn):
        sys.modules[EXTENSION] = StandIn()
    return True


STAND_IN_ACTIVE = provide()


def active_backend(device: str | torch.device = 'cpu') -> dict[str, str]:
    """Return what runs each operator on a device: ``compiled``, ``torchvision``, ``numba`` or ``torch``."""
    operators = ('nms', 'roi_align', 'ms_deform_attn')
    if not STAND_IN_ACTIVE:
        return dict.fromkeys(operators, 'compiled')
    return {operator: choose_backend(operator, torch.device(device)) for operator in operators}
