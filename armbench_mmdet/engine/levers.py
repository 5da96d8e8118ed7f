"""Levers of speed: bfloat16 on a CPU, channels-last memory, compiled parts of a model."""

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from armbench_mmdet.errors import InputError

COMPILED = ('backbone', 'neck')  # of a detector; the rest depends on what is found in an image: no graph would hold


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Trains in automatic mixed precision on a CPU: bfloat16 where it is safe, which needs no loss scale."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass in mixed precision."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


def has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16; one that does not is many times slower for it."""
    features: Mapping[str, Any] = getattr(torch.cpu, 'get_capabilities', dict)()  # torch 2.12 and newer
    return any(features.get(name) for name in ('amx_bf16', 'avx512_bf16', 'sve_bf16'))


def set_levers(config: Config, amp: bool, channels_last: bool, compiled: bool, training: bool = False) -> None:
    """Choose levers in a config, in place, as the command lines do; what the config itself chose stays.

    ``amp`` is float16 on a GPU and bfloat16 on a CPU that has it: in ``training`` as mmdet's ``--amp``, with
    validations in float32, otherwise of predictions.

    Raises:
        InputError: ``amp`` is asked for, and there is no GPU, and the CPU has no bfloat16.
    """
    wanted = {'channels_last': channels_last, 'compile': compiled}
    config.merge_from_dict({f'levers.{name}': True for name in wanted if wanted[name]})
    if not amp:
        return
    if not torch.cuda.is_available() and not has_bfloat16():
        raise InputError('--amp must have a GPU, or a CPU with bfloat16 (AMX, AVX-512 BF16), got neither; leave it out')
    if not training:
        config.test_cfg.fp16 = True
    elif torch.cuda.is_available():
        config.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    else:
        config.optim_wrapper.type = 'BFloat16OptimWrapper'


def use_levers(model: nn.Module, levers: Mapping[str, Any]) -> None:
    """Pull the levers that a config chose, ``levers = dict(channels_last=True, compile=True)``, on a new model.

    ``channels_last`` keeps its weights, and so its feature maps, channel by channel for each pixel; ``compile``
    compiles the parts in :data:`COMPILED` when they first run. Neither changes the names of the weights.

    Raises:
        InputError: There is no such lever, or no compiler for the CPU's code.
    """
    unknown = [f'{name}={value!r}' for name, value in levers.items() if name not in ('channels_last', 'compile')]
    if unknown:
        raise InputError(f'levers must be channels_last and compile, got {", ".join(unknown)}')
    if levers.get('channels_last'):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's own types lack it
    if not levers.get('compile'):
        return
    if not torch.cuda.is_available() and not any(map(shutil.which, ('c++', 'g++', 'clang++', 'cl'))):
        raise InputError('--compile must have a C++ compiler on a machine without a GPU, got none; install g++')
    warnings.filterwarnings('ignore', 'Dynamo detected a call to a `functools.lru_cache`')
    for name, module in model.named_modules():
        if name in COMPILED:
            module.compile()
