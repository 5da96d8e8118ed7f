"""kill −9 at any moment and ``--resume`` give the run that was never killed, bit for bit."""

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from processes import in_processes
from small_models import tiny_config
from toy_run import assert_equal, logged

from armbench_mmdet.engine import ArmbenchRunner
from armbench_mmdet.engine.checkpoints import latest_checkpoint, read_checkpoint
from armbench_mmdet.engine.distributed import joined_processes
from armbench_mmdet.launch import set_resume, train

HOOKS = ('before_train_epoch', 'before_train_iter', 'after_train_iter', 'before_val', 'after_val_iter')
ITERATIONS = 12
DEATHS = 5


class Moments:
    """Counts what a run does, or only what it does with files, and ends its process at one of these moments."""

    def __init__(self, last: int, in_files: bool, diary: Path) -> None:
        self.left, self.in_files, self.diary = last, in_files, diary

    def pass_by(self, what: str) -> None:
        self.left -= what not in HOOKS or not self.in_files
        if not self.left:
            with self.diary.open('a') as file:
                file.write(what + '\n')
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Stand beside hooks, and inside and between the steps of writing a file."""
        call_hook, fsync, replace = ArmbenchRunner.call_hook, os.fsync, os.replace

        def hooked(runner: Any, fn_name: str, **kwargs: Any) -> None:
            call_hook(runner, fn_name, **kwargs)
            if fn_name in HOOKS:
                self.pass_by(fn_name)

        def synced(descriptor: int) -> None:
            self.pass_by('before a sync')
            fsync(descriptor)

        def replaced(source: Path, target: Path) -> None:
            self.pass_by(f'before a rename to {Path(target).suffix}')
            replace(source, target)
            self.pass_by(f'after a rename to {Path(target).suffix}')

        def written(path: Path, content: Any) -> None:
            half = len(content) // 2
            with path.open('wb') as file:
                file.write(content[:half])
                file.flush()
                self.pass_by('half-way through a file')
                file.write(content[half:])

        ArmbenchRunner.call_hook = hooked  # type: ignore[method-assign]
        os.fsync, os.replace, Path.write_bytes = synced, replaced, written  # type: ignore[method-assign]


def live(root: Path, work_dir: Path, workers: int, processes: int, moment: tuple[int, bool] | None) -> None:
    """Train in each of the processes, or go on where a run was killed; the first may kill itself at a moment.

    It is the minibench Mask R-CNN on small images, with everything random in it.
    """
    if moment is not None and os.environ['RANK'] == '0':
        Moments(*moment, work_dir / 'deaths.txt').watch()
    config = tiny_config(root, work_dir, ITERATIONS)
    config.train_cfg.val_interval = 6
    config.default_hooks.checkpoint.interval = 3
    config.default_hooks.logger.interval = 1
    if processes == 1:
        config.optim_wrapper.accumulative_counts = 2  # checkpoints at odd iterations hold half a step
    config.model.backbone.base_channels = 8
    config.model.backbone.init_cfg = None
    config.model.neck.in_channels = [8, 16, 32, 64]
    config.train_dataloader.num_workers = workers
    for loader in (config.train_dataloader, config.val_dataloader):
        next(step for step in loader.dataset.pipeline if step.type == 'LazyResize').scale = (128, 104)
    if latest_checkpoint(work_dir) is not None:
        set_resume(config, 'auto')
    with joined_processes(config, 'pytorch' if processes > 1 else 'none'):
        train(config)


def outcome(work_dir: Path) -> dict[str, Any]:
    """All that a finished run leaves behind, but for times."""
    checkpoint = read_checkpoint(work_dir / f'iter_{ITERATIONS}.pth')
    return {
        **{key: checkpoint[key] for key in ('state_dict', 'optimizer', 'param_schedulers')},
        'rows': logged(work_dir),
        'best': {path.name: read_checkpoint(path)['state_dict'] for path in work_dir.glob('best_*.pth')},
        'files': sorted(path.name for path in work_dir.iterdir() if path.name.endswith(('.pth', '.draft'))),
    }


@pytest.fixture(scope='module')
def uninterrupted(minibench_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """The outcome of the run that nobody killed, by number of training processes."""
    outcomes = {}
    for processes in (1, 2):
        work_dir = tmp_path_factory.mktemp(f'whole_{processes}')
        assert in_processes(processes, work_dir, live, minibench_root, work_dir, 0, processes, None)
        outcomes[processes] = outcome(work_dir)
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize(('workers', 'processes', 'seed'), [(0, 1, 0), (2, 1, 1), (0, 2, 0)])
def test_killed_and_resumed_is_never_killed(
    workers: int, processes: int, seed: int, uninterrupted: dict, minibench_root: Path, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    moments = [(draw.randint(5, 20), True), *((draw.randint(6, 30), False) for _ in range(DEATHS - 1))]
    for moment in (*moments, None):
        is_finished = in_processes(processes, tmp_path, live, minibench_root, tmp_path, workers, processes, moment)
        assert is_finished == (moment is None)
    diary = (tmp_path / 'deaths.txt').read_text().splitlines()
    assert len(diary) == DEATHS, diary
    assert diary[0] not in HOOKS, diary
    assert_equal(outcome(tmp_path), uninterrupted[processes])
