"""Checkpoints of runs that fail or are asked to stop: what is left, what is said, and how they go on."""

import errno
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from mmengine.config import Config
from torch.utils.data import DataLoader
from toy_run import EPOCHS, AtIteration, Points, assert_equal, run, state_of, toy_config

from armbench_mmdet.engine.checkpoints import read_checkpoint
from armbench_mmdet.errors import InputError
from armbench_mmdet.hooks.checkpoint import InterruptionHook
from armbench_mmdet.run_folder import read_record
from armbench_mmdet.system import resume_command


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What is left of runs that nothing has happened to: one counts iterations, one epochs."""
    return [state_of(run(toy_config(tmp_path_factory.mktemp('whole'), **counted))) for counted in ({}, EPOCHS)]


def names(folder: Path, pattern: str = '*.pth') -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


@pytest.mark.parametrize(('counted', 'kept'), [({}, ('iter_10', 'iter_12')), (EPOCHS, ('epoch_3', 'epoch_4'))])
def test_the_latest_the_one_before_and_the_best_are_kept(tmp_path: Path, counted: dict, kept: tuple[str, str]) -> None:
    (tmp_path / 'iter_2.pth.draft').touch()  # what a kill has left half written
    runner = run(toy_config(tmp_path, **counted))
    best = Path(runner.message_hub.get_info('best_ckpt')).name
    assert names(tmp_path) == sorted([best, *(f'{name}.pth' for name in kept)])
    assert Path((tmp_path / 'last_checkpoint').read_text()) == tmp_path / f'{kept[1]}.pth'
    assert not names(tmp_path, '*.draft')


def run_on_a_disk_that_fills(config: Config, file: str) -> None:
    """Nothing can be written after the fifth iteration, and the run ends at a file."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.MonkeyPatch.context() as patch:
        config.custom_hooks.append(AtIteration(5, lambda: patch.setattr(os, 'fsync', Mock(side_effect=full))))
        with pytest.raises(InputError, match=rf'No space left on device \(in .*{file}\.pth\)'):
            run(config)


def test_a_full_disk_leaves_what_was_and_damage_costs_two_iterations(tmp_path: Path, whole: list, capsys) -> None:
    run_on_a_disk_that_fills(toy_config(tmp_path), 'iter_6')
    assert names(tmp_path, 'iter_*.pth') == ['iter_2.pth', 'iter_4.pth']
    with (tmp_path / 'iter_4.pth').open('r+b') as file:
        file.seek(-2000, 2)
        file.write(b'?' * 100)
    runner = run(toy_config(tmp_path), 'auto')
    printed = ''.join(capsys.readouterr())
    assert 'passed over' in printed
    assert 'iter_2.pth at iteration 2 of 12' in printed
    assert_equal(state_of(runner), whole[0])


def test_the_best_until_now_stays_when_a_better_one_cannot_be_written(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    config.default_hooks.checkpoint.interval = -1
    run_on_a_disk_that_fills(config, 'best_toy_score_iter_6')
    assert 'best_toy_score_iter_3.pth' in names(tmp_path)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize('by_epoch', [False, True], ids=['iterations', 'epochs'])
@pytest.mark.parametrize(
    ('name', 'status', 'iteration', 'in_validation'),
    [('SIGTERM', 143, 5, False), ('SIGINT', 130, 8, False), ('SIGUSR1', 138, 12, False), ('SIGTERM', 143, 12, True)],
)
def test_run_that_is_stopped_saves_and_goes_on_as_if_it_had_not_been(
    name: str, status: int, iteration: int, in_validation: bool, by_epoch: bool, whole, tmp_path, capfd, monkeypatch
) -> None:
    command = ['python', 'tools/train.py', 'configs/a b.py', '--resume', 'old.pth', '--amp']
    monkeypatch.setattr(sys, 'orig_argv', command)
    number = getattr(signal, name)
    before = signal.getsignal(number)
    config = toy_config(tmp_path, **(EPOCHS if by_epoch else {}))
    stops = AtIteration(iteration, lambda: send(number), in_validation)
    config.custom_hooks += [dict(type='InterruptionHook'), dict(type='RunRecordHook'), stops]
    with pytest.raises(SystemExit) as caught:
        run(config)
    assert caught.value.code == status
    assert signal.getsignal(number) is before
    interrupted = tmp_path / 'interrupted.pth'
    assert read_checkpoint(interrupted)['meta']['iter'] == iteration
    assert (tmp_path / 'last_checkpoint').read_text() == str(interrupted)
    said = f'stopped by {name} after iteration {iteration}'
    printed = ''.join(capfd.readouterr())
    assert f'{name}: finishing this iteration' in printed
    assert f"{said}; to go on:\n  python tools/train.py 'configs/a b.py' --amp --resume\n" in printed
    record: Any = read_record(tmp_path)
    assert (record.status, record.message, record.attempts[0].end_iter) == ('stopped', said, iteration)
    config.custom_hooks.pop()
    assert_equal(state_of(run(config, resume='auto')), whole[by_epoch])
    assert iteration == 12 or not interrupted.exists(), 'gone with the next checkpoint'


def test_second_ctrl_c_quits_at_once_but_one_key_heard_twice_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr('time.monotonic', lambda: now_s[0])
    hook = InterruptionHook()
    hook._hear(signal.SIGINT, None)
    now_s[0] += 0.01  # the terminal and torchrun both pass it on
    hook._hear(signal.SIGINT, None)
    now_s[0] += 1.5
    hook._hear(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt):
        hook._hear(signal.SIGINT, None)


def load_and_die(file: Path) -> None:
    """Runs in a process of its own."""
    loader = DataLoader(Points(), num_workers=1, collate_fn=list)
    runner: Any = SimpleNamespace(train_loop=SimpleNamespace(dataloader=loader), val_loop=None)
    InterruptionHook().before_train(runner)
    batches = iter(loader)
    next(batches)
    (worker,) = multiprocessing.active_children()
    file.write_text(f'{worker.pid} {os.getpgid(worker.pid or 0)}')
    send(signal.SIGKILL)


@pytest.mark.skipif(sys.platform != 'linux', reason='Linux ends the children')
def test_data_loading_processes_hear_no_signal_to_the_group_and_end_with_their_run(tmp_path: Path) -> None:
    run = multiprocessing.get_context('fork').Process(target=load_and_die, args=(tmp_path / 'worker',))
    run.start()
    run.join(60)
    assert run.exitcode == -signal.SIGKILL
    worker, group = (tmp_path / 'worker').read_text().split()
    assert group == worker
    deadline_s = time.monotonic() + 2  # after five seconds torch would see to it, where nothing is being written
    status = Path('/proc', worker, 'status')
    while (is_alive := status.is_file() and 'zombie' not in status.read_text()) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not is_alive


TRAIN, TORCHRUN = 'python tools/train.py c.py', 'torchrun --standalone --nproc-per-node 2'


@pytest.mark.parametrize(
    ('is_torchrun', 'words', 'expected'),
    [
        (False, TRAIN, f'{TRAIN} --resume'),
        (False, 'python tools/train.py --resume=a.pth c.py', f'{TRAIN} --resume'),
        (False, 'python bin/armbench train c --resume', 'armbench train c --resume'),
        (False, 'python -m pytest', 'armbench train toy.py --work-dir folder --resume'),
        (True, f'{TRAIN} --launcher pytorch', f'{TORCHRUN} tools/train.py c.py --launcher pytorch --resume'),
        (True, 'python -m armbench_cli train c', f'{TORCHRUN} -m armbench_cli train c --resume'),
    ],
)
def test_command_that_resumes(monkeypatch, is_torchrun: bool, words: str, expected: str) -> None:
    monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
    if is_torchrun:
        monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
        monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    typed, _, own = words.partition(' train ')  # which armbench_cli passes on by its name
    monkeypatch.setattr(sys, 'orig_argv', words.split())
    monkeypatch.setattr(sys, 'argv', ['armbench train', *own.split()] if own else typed.split()[1:])
    runner: Any = SimpleNamespace(cfg=SimpleNamespace(filename='toy.py'), work_dir='folder')
    assert resume_command(runner) == expected
