"""Runs that are asked to stop, or are killed: what they leave, what they say, and how they go on."""

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader
from toy_run import EPOCHS, AtIteration, Points, assert_equal, guarded_runner, run, state_of, toy_config

from armbench_mmdet.engine.checkpoints import read_checkpoint
from armbench_mmdet.hooks.checkpoint import InterruptionHook
from armbench_mmdet.run_folder import read_record
from armbench_mmdet.system import resume_command


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(('name', 'status'), [('SIGTERM', 143), ('SIGINT', 130), ('SIGUSR1', 138)])
def test_signal_finishes_the_iteration_saves_and_tells_how_to_go_on(tmp_path, capfd, monkeypatch, name, status) -> None:
    command = ['python', 'tools/train.py', 'configs/a b.py', '--resume', 'old.pth', '--amp']
    monkeypatch.setattr(sys, 'orig_argv', command)
    number = getattr(signal, name)
    before = signal.getsignal(number)
    runner = guarded_runner(tmp_path, hooks=[AtIteration(3, lambda: send(number))])
    with pytest.raises(SystemExit) as caught:
        runner.train()
    assert caught.value.code == status
    assert signal.getsignal(number) is before
    assert read_checkpoint(tmp_path / 'interrupted.pth')['meta']['iter'] == 3
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'interrupted.pth')
    said = f'stopped by {name} after iteration 3'
    printed = ''.join(capfd.readouterr())
    assert f'{name}: finishing this iteration' in printed
    assert f"{said}; to go on:\n  python tools/train.py 'configs/a b.py' --amp --resume\n" in printed
    record: Any = read_record(tmp_path)
    assert (record.status, record.message, record.attempts[0].end_iter) == ('stopped', said, 3)


@pytest.mark.parametrize('counted', [{}, EPOCHS], ids=['iterations', 'epochs'])
@pytest.mark.parametrize(('iteration', 'in_validation'), [(5, False), (8, False), (12, False), (12, True)])
def test_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, counted, iteration, in_validation) -> None:
    whole = run(toy_config(tmp_path / 'whole', **counted))
    config = toy_config(tmp_path / 'stopped', **counted)
    signals = AtIteration(iteration, lambda: send(signal.SIGTERM), in_validation)
    config.custom_hooks += [dict(type='InterruptionHook'), signals]
    with pytest.raises(SystemExit) as caught:
        run(config)
    assert caught.value.code == 143
    config.custom_hooks.pop()
    assert_equal(state_of(run(config, resume='auto')), state_of(whole))
    assert iteration == 12 or not (tmp_path / 'stopped/interrupted.pth').exists(), 'gone with the next checkpoint'


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
