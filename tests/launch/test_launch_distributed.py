"""Several processes through the real path and the real command lines, on CPUs."""

import os
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
from mmengine.config import Config
from msgspec.structs import replace
from processes import in_processes
from small_models import LEAVES, REPO, untrained

from armbench_cli import run_tool
from armbench_mmdet.engine.checkpoints import read_checkpoint
from armbench_mmdet.engine.distributed import joined_processes
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import Images, read_result
from armbench_mmdet.launch import evaluate
from armbench_mmdet.minibench import SUBSETS
from armbench_mmdet.run_folder import read_record


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
def test_torchrun_stops_all_processes_on_sigterm_and_the_printed_command_goes_on(
    minibench_root: Path, tmp_path: Path
) -> None:
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
    for name in ('RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr('torch.cuda.is_available', lambda: gpus > 0)
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
