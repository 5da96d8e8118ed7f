"""Several processes on one machine: forks of a server that has imported everything once."""

import os
import signal
import socket
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

_context = get_context('forkserver')
_context.set_forkserver_preload(['mmdet.apis', 'armbench_mmdet.launch', 'armbench_mmdet.engine.distributed'])


def _live(function: Callable, arguments: tuple, log: Path, environment: dict[str, str]) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    function(*arguments)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def in_processes(count: int, folder: Path, function: Callable, *arguments: Any) -> bool:
    """Call a function of a module in processes that can join each other as those of torchrun do.

    What they print goes to ``folder``. Returns whether they came to their end, which all do not if the first is killed.
    """
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        shared = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(free.getsockname()[1]), 'WORLD_SIZE': str(count)}
    processes = []
    for rank in range(count):
        own = {**shared, 'RANK': str(rank), 'LOCAL_RANK': str(rank)}
        log = folder / f'console_{rank}.txt'
        processes.append(_context.Process(target=_live, args=(function, arguments, log, own)))
        processes[-1].start()
    for process in processes:
        process.join(500)
        if process.exitcode != 0:
            for other in processes:
                other.kill()
                other.join()
    codes = [process.exitcode for process in processes]
    printed = [(folder / f'console_{rank}.txt').read_text()[-3000:] for rank in range(count)]
    assert codes == [0] * count or codes[0] == -signal.SIGKILL, (codes, printed)
    return codes[0] == 0
