"""Runs as processes: killed at any moment and resumed, or sharing the work, they are one that nobody disturbs."""

import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from msgspec.structs import replace
from processes import in_processes
from small_models import LEAVES, REPO, tiny_config, untrained
from toy_run import Points, assert_equal, guarded_runner, logged, weights

from armbench_cli import run_tool
from armbench_mmdet.engine import ArmbenchRunner
from armbench_mmdet.engine.checkpoints import latest_checkpoint, read_checkpoint
from armbench_mmdet.engine.distributed import gathered, joined_processes, largest, total
from armbench_mmdet.engine.failure import explained_failures
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import Images, read_result
from armbench_mmdet.launch import evaluate, set_resume, train
from armbench_mmdet.minibench import SUBSETS
from armbench_mmdet.run_folder import read_record

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
    """Train the minibench Mask R-CNN in each process, or go on where it was killed; the first may kill itself."""
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


IMAGES_A_STEP = 4
BAD = {9: (float('nan'), 0, 0)}  # in the third step, and in the second process if there are two


def agree(count: int) -> None:
    rank = torch.distributed.get_rank()
    assert largest(15 if rank == count - 1 else 0) == 15
    assert float(total(torch.tensor(float(rank)))) == sum(range(count))
    assert bool(total(torch.tensor(float('inf') if rank else 1.0)).isinf()) == (count > 1)
    for dealt in (range(7), [*range(7), *range(-7 % count)]):  # shares as they fall, and filled up
        assert gathered(list(dealt)[rank::count], 7) == ([] if rank else list(range(7)))


def share(count: int, folder: Path, **options: Any) -> ArmbenchRunner:
    """The run of this process: four images a step in all."""
    images = Points(count=24, changed=BAD)
    return guarded_runner(folder, 5, data=images, batch_size=IMAGES_A_STEP // count, launcher='pytorch', **options)


def everything(count: int, folder: Path) -> None:
    """Runs in every process."""
    config = Config()
    with joined_processes(config, 'pytorch'):
        agree(count)
        wrapper = {'model_wrapper_cfg': config.model_wrapper_cfg}
        runner = share(count, folder / 'skip', loss_guard={'on_bad_loss': 'skip'}, **wrapper)
        assert isinstance(runner.model, MMDistributedDataParallel)
        runner.train()
        torch.save(weights(runner), folder / f'weights_{runner.rank}.pth')

        runner = share(count, folder / 'stop', **wrapper)
        with pytest.raises(InputError) as failed, explained_failures(runner):
            runner.train()
        (folder / f'message_{runner.rank}').write_text(str(failed.value))


@pytest.mark.slow
def test_processes_agree_and_together_train_what_one_does(tmp_path: Path) -> None:
    for count in (1, 2, 4):
        assert in_processes(count, tmp_path / str(count), everything, count, tmp_path / str(count))
    alone = torch.load(tmp_path / '1/weights_0.pth')
    for rank in range(2):
        shared = torch.load(tmp_path / f'2/weights_{rank}.pth')
        for name in alone:
            torch.testing.assert_close(shared[name], alone[name], rtol=0, atol=1e-6)
    messages = [(tmp_path / f'2/message_{rank}').read_text() for rank in range(2)]
    assert 'not finite at iteration 3 in another process: ' in messages[0]
    assert 'at iteration 3: loss nan, loss_fit nan' in messages[1]
    assert 'images/9.jpg' in messages[1]


def evaluate_share(config: Config, checkpoint: Path, out_dir: Path) -> None:
    """Runs in every process."""
    with joined_processes(config, 'pytorch'):
        evaluate(config, checkpoint, SUBSETS[:1], 'test', out_dir)


@pytest.mark.slow
def test_result_files_are_the_same_whoever_evaluates(minibench_root: Path, tmp_path: Path) -> None:
    config, checkpoint = untrained('mask_rcnn', minibench_root, tmp_path)
    alone, shared = tmp_path / 'alone', tmp_path / 'shared'
    for count, results in ((1, alone), (3, shared)):  # four images: two shares have to be filled up
        assert in_processes(count, results, evaluate_share, config, checkpoint, results)
    stem = f'{SUBSETS[0]}_test'
    expected = read_result(alone / f'{stem}.json')
    assert expected.detections > 0
    assert expected.images == Images(ground_truth=4, not_seen=0, repeated=0)
    assert replace(read_result(shared / f'{stem}.json'), speed=None) == replace(expected, speed=None)
    for name in (f'{stem}.segm.json', f'{stem}.bbox.json', f'{stem}.segm.matches.npz'):
        assert (shared / name).read_bytes() == (alone / name).read_bytes(), name


def started(*command: str | Path, until: Callable[[], bool] | None = None) -> tuple[int, str]:
    """The exit status of a command, and what it printed; SIGTERM asks it to stop as soon as something is so."""
    environment = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}', 'OMP_NUM_THREADS': '1'}
    options: dict[str, Any] = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT, 'text': True}
    process = subprocess.Popen([*map(str, command)], cwd=REPO, env=environment, start_new_session=True, **options)
    try:
        while until is not None and not until() and process.poll() is None:
            time.sleep(0.1)
        if until is not None:
            process.send_signal(signal.SIGTERM)
        printed = process.communicate(timeout=400)[0]
        return process.returncode, printed
    finally:
        process.kill()


@pytest.mark.slow
def test_torchrun_stops_on_sigterm_and_the_printed_command_goes_on(minibench_root: Path, tmp_path: Path) -> None:
    options = ['--work-dir', tmp_path, '--data-root', minibench_root, '--cfg-options', 'train_cfg.max_iters=12']
    options += ['train_cfg.val_interval=12', 'train_dataloader.batch_size=1', 'default_hooks.checkpoint.interval=12']
    options += ['param_scheduler.0.end=2', 'param_scheduler.1.begin=2', 'param_scheduler.1.end=12']
    options += ['default_hooks.logger.interval=1']

    def is_logged() -> bool:  # a data-loading process that is only just starting would die of the signal to the group
        return any(tmp_path.glob('*/vis_data/scalars.json'))

    status, printed = started('bash', 'tools/dist_train.sh', LEAVES['mask_rcnn'], '2', *options, until=is_logged)
    assert status != 0
    record: Any = read_record(tmp_path)
    assert record.status == 'stopped', printed
    stopped_at = read_checkpoint(tmp_path / 'interrupted.pth')['meta']['iter']
    assert printed.count(f'stopped by SIGTERM after iteration {stopped_at}') == 1
    for noise in ('DataLoader worker', 'OMP_NUM_THREADS'):
        assert noise not in printed
    command = re.search(r'^  (torchrun .* --launcher pytorch .* --resume)$', printed, re.MULTILINE)
    assert command is not None, printed
    status, printed = started(*shlex.split(command[1]))
    assert status == 0, printed
    assert printed.count('mix-object-tote val: 3 images') == 1
    record = read_record(tmp_path)
    attempts = [(one.status, one.world_size, one.start_iter) for one in record.attempts]
    assert attempts == [('stopped', 2, 0), ('finished', 2, stopped_at)]
    for noise in ('Traceback', 'warning:', 'Warning', 'Gloo', 'OMP_NUM_THREADS'):
        assert noise not in printed, printed


@pytest.mark.parametrize(
    ('launcher', 'ranks', 'gpus', 'message'),
    [
        ('pytorch', {}, 0, 'torchrun starts, which sets RANK'),
        ('slurm', {}, 0, 'srun starts'),
        ('slurm', {'SLURM_PROCID': '0'}, 0, '--launcher must be pytorch'),
        ('pytorch', {'RANK': '2', 'LOCAL_RANK': '2'}, 2, 'must be below 2'),
    ],
)
def test_a_launcher_that_cannot_work_says_why(launcher: str, ranks: dict, gpus: int, message: str, monkeypatch) -> None:
    monkeypatch.setattr(os, 'environ', {**ranks})
    monkeypatch.setattr('torch.cuda.device_count', lambda: gpus)
    with pytest.raises(InputError, match=message), joined_processes(Config({}), launcher):
        pass


def test_a_message_that_all_processes_have_is_printed_once(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def fail() -> None:
        raise InputError('a clear message')

    for rank in ('0', '1', '2'):
        monkeypatch.setenv('RANK', rank)
        assert run_tool(fail) == 2
    assert capsys.readouterr().err == 'error: a clear message\n'
