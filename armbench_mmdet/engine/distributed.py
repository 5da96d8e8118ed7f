"""Processes of one run: joining them, and agreement between them."""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, gather_object

from armbench_mmdet.errors import InputError


def largest(value: int) -> int:
    """The largest of the values that the processes give; each must call this at the same point."""
    values = torch.tensor(value)
    all_reduce(values, 'max')
    return int(values)


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum of a scalar over the processes, which is NaN or infinite if one of them is."""
    summed = value.detach().float().clone()
    all_reduce(summed, 'sum')
    return summed


def gathered(share: Sequence[Any], size: int) -> list[Any]:
    """What the processes have made of a data set of ``size`` samples that were dealt to them in turn, in its order.

    Samplers begin anew to give all processes equally much, and that is left out. Only the first process gets anything.
    """
    shares = gather_object(list(share)) or []
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*shares))
    return [one for one in in_turn if one is not None][:size]


_STARTERS = {  # what a launcher's processes are started by, and the variable that this sets
    'pytorch': ('torchrun', 'RANK'),
    'slurm': ('srun', 'SLURM_PROCID'),
    'mpi': ('mpirun', 'OMPI_COMM_WORLD_RANK'),
}


@contextlib.contextmanager
def joined_processes(config: Config, launcher: str) -> Iterator[None]:
    """Be one of the processes of a run, started by ``torchrun``, SLURM or MPI, for as long as the context lasts.

    With GPUs mmengine joins them over NCCL when it builds the runner; without, they are joined here over gloo, and the
    model is wrapped for CPUs. Only the first process prints to standard output.

    Raises:
        InputError: The launcher did not start this process, or there is no GPU for it.
    """
    config.launcher = launcher
    if launcher == 'none':
        yield
        return
    starter, variable = _STARTERS[launcher]
    if variable not in os.environ:
        raise InputError(
            f'--launcher {launcher} is for processes that {starter} starts, which sets {variable}; it is not set. '
            'tools/dist_train.sh CONFIG N starts N processes on this machine.'
        )
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        os.environ.setdefault(name, '1')  # mmengine would, with a warning
    gpus, local_rank = torch.cuda.device_count(), int(os.environ.get('LOCAL_RANK', 0))
    if not gpus:
        _join_on_cpus(config, launcher)
    elif launcher == 'pytorch' and local_rank >= gpus:
        raise InputError(f'local rank must be below {gpus}, the number of GPUs of this machine, got {local_rank}')
    with contextlib.ExitStack() as quiet:
        if os.environ[variable] != '0':
            quiet.enter_context(contextlib.redirect_stdout(quiet.enter_context(open(os.devnull, 'w'))))
        try:
            yield
        except SystemExit:  # all processes stop together
            _leave()
            raise
    _leave()


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _join_on_cpus(config: Config, launcher: str) -> None:
    if launcher != 'pytorch':
        raise InputError(f'--launcher must be pytorch (torchrun) on a machine without GPUs, got {launcher!r}')
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    config.model_wrapper_cfg = {
        'type': 'MMDistributedDataParallel',
        'device_ids': None,
        'broadcast_buffers': False,
        'find_unused_parameters': config.get('find_unused_parameters', False),
    }
