"""A run in processes of its own that kills itself (SIGKILL) at a chosen moment; see ``test_killed_runs.py``."""

from __future__ import annotations

import io
import os
import signal
import socket
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mmengine.config import Config

_MODULES = ['torch', 'armbench_mmdet', 'mmdet.apis', 'armbench_mmdet.launch', 'armbench_mmdet.engine.distributed']
_HOOKS = ('before_train_epoch', 'before_train_iter', 'after_train_iter', 'before_val', 'after_val_iter')
ITERATIONS, SAVE_EVERY, VALIDATE_EVERY = 12, 3, 6

_context = get_context('forkserver')  # importing everything takes seconds: once, then every run is a fork of it
_context.set_forkserver_preload(_MODULES)


def config_of(root: Path, work_dir: Path, workers: int, processes: int) -> Config:
    """The minibench Mask R-CNN on small images, with everything random in it."""
    from test_runs import tiny_config

    config = tiny_config(root, work_dir, ITERATIONS)
    config.train_cfg.val_interval = VALIDATE_EVERY
    config.default_hooks.checkpoint.interval = SAVE_EVERY
    config.default_hooks.logger.interval = 1
    if processes == 1:
        config.optim_wrapper.accumulative_counts = 2  # checkpoints at odd iterations hold half a step
    config.model.backbone.base_channels = 8
    config.model.backbone.init_cfg = None
    config.model.neck.in_channels = [8, 16, 32, 64]
    config.train_dataloader.update(num_workers=workers)
    for loader in (config.train_dataloader, config.val_dataloader):
        next(step for step in loader.dataset.pipeline if step.type == 'LazyResize').scale = (128, 104)
    return config


class _Moments:
    """Counts what a run does, and ends its process at one of these moments."""

    def __init__(self, last: int, diary: Path) -> None:
        self.left = last
        self.diary = diary

    def pass_by(self, what: str) -> None:
        self.left -= 1
        if self.left == 0:
            with self.diary.open('a') as file:
                file.write(what + '\n')
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Stand beside hooks, and inside and between the steps of writing a file."""
        import torch

        from armbench_mmdet.engine import ArmbenchRunner

        call_hook, fsync, replace, save = ArmbenchRunner.call_hook, os.fsync, os.replace, torch.save

        def hooked(runner: Any, fn_name: str, **kwargs: Any) -> None:
            call_hook(runner, fn_name, **kwargs)
            if fn_name in _HOOKS:
                self.pass_by(fn_name)

        def synced(descriptor: int) -> None:
            self.pass_by('before a sync')
            fsync(descriptor)

        def replaced(source: Path, target: Path) -> None:
            self.pass_by(f'before a rename to {Path(target).suffix}')
            replace(source, target)
            self.pass_by(f'after a rename to {Path(target).suffix}')

        def saved(content: Any, stream: Any) -> None:
            whole = io.BytesIO()
            save(content, whole)
            half = len(whole.getvalue()) // 2
            stream.write(whole.getvalue()[:half])
            stream.flush()
            self.pass_by('half-way through a file')
            stream.write(whole.getvalue()[half:])

        ArmbenchRunner.call_hook = hooked  # type: ignore[method-assign]
        os.fsync, os.replace, torch.save = synced, replaced, saved


def _live(root: Path, work_dir: Path, workers: int, moment: int | None, rank: int, processes: int, port: int) -> None:
    import torch

    from armbench_mmdet.engine.checkpoints import latest_checkpoint
    from armbench_mmdet.engine.distributed import joined_processes
    from armbench_mmdet.launch import set_resume, train

    torch.set_num_threads(1)
    log = os.open(work_dir / f'console_{rank}.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if rank == 0 and moment is not None:
        _Moments(moment, work_dir / 'deaths.txt').watch()
    addresses = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port, 'WORLD_SIZE': processes, 'RANK': rank}
    os.environ.update({name: str(value) for name, value in addresses.items()}, LOCAL_RANK=str(rank))
    config = config_of(root, work_dir, workers, processes)
    if latest_checkpoint(work_dir) is not None:
        set_resume(config, 'auto')
    with joined_processes(config, 'pytorch' if processes > 1 else 'none'):
        train(config)


def live(root: Path, work_dir: Path, workers: int = 0, processes: int = 1, moment: int | None = None) -> bool:
    """Train until the end, or until the process kills itself; resume where a run was killed before.

    Args:
        root: The data.
        work_dir: The run's folder.
        workers: Data-loading processes.
        processes: Training processes.
        moment: The number of the moment at which the first training process dies; None for never.

    Returns:
        Whether the run came to its end.
    """
    work_dir.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    ranks = [
        _context.Process(target=_live, args=(root, work_dir, workers, moment, rank, processes, port))
        for rank in range(processes)
    ]
    for process in ranks:
        process.start()
    ranks[0].join(300)
    for process in ranks[1:]:
        if ranks[0].exitcode:
            with suppress(ProcessLookupError):
                process.kill()
        process.join(60)
    codes = [process.exitcode for process in ranks]
    assert codes[0] in (0, -signal.SIGKILL), (codes, (work_dir / 'console_0.txt').read_text()[-3000:])
    return codes[0] == 0
