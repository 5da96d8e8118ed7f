"""Several processes on one machine, joined over gloo: started from one interpreter, which imports everything once.

As a program: ``processes.py COUNTS FILE FUNCTION ARGUMENTS…`` calls the function of a Python file, for each of the
counts, in so many processes at a time, with the count and the arguments.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def in_processes(counts: Sequence[int], file: str, function: str, *arguments: str | Path) -> str:
    """Call a function in several processes, once for each of the counts; returns what they printed."""
    command = [sys.executable, __file__, ','.join(map(str, counts)), file, function, *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as parent:
        try:
            printed, _ = parent.communicate(timeout=500)
        finally:
            with contextlib.suppress(ProcessLookupError):  # none of them outlives the test
                os.killpg(parent.pid, signal.SIGKILL)
    assert parent.returncode == 0, printed
    return printed


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return int(server.getsockname()[1])


def _main(counts: str, file: str, function: str, *arguments: str) -> int:
    sys.path[:0] = [str(Path(file).parent), str(Path(__file__).parent)]
    spec = importlib.util.spec_from_file_location('target', file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    import torch.distributed

    for count in map(int, counts.split(',')):
        shared = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(_free_port()), 'WORLD_SIZE': str(count)}
        children = []
        for rank in range(count):
            child = os.fork()
            if not child:
                os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank))
                torch.distributed.init_process_group('gloo')
                getattr(module, function)(count, *arguments)
                if torch.distributed.is_initialized():
                    torch.distributed.barrier()
                sys.stdout.flush()
                os._exit(0)
            children.append(child)
        for _ in children:
            if os.wait()[1]:
                return 1
    return 0


if __name__ == '__main__':
    sys.exit(_main(*sys.argv[1:]))
