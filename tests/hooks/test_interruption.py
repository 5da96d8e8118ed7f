from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from guarded_run import AtIteration, guarded_runner
from mmengine.hooks import Hook
from toy_run import assert_equal, by_epoch, run, state_of, toy_config

from armbench_mmdet.engine.checkpoints import read_checkpoint
from armbench_mmdet.hooks.interruption import InterruptionHook
from armbench_mmdet.system import resume_command


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(('name', 'status'), [('SIGTERM', 143), ('SIGINT', 130), ('SIGUSR1', 138)])
def test_signal_finishes_the_iteration_saves_and_tells_how_to_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str, status: int
) -> None:
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
    printed = ''.join(capfd.readouterr())
    assert f'{name}: finishing this iteration' in printed
    assert f'stopped by {name} after iteration 3; to go on:' in printed
    assert "  python tools/train.py 'configs/a b.py' --amp --resume\n" in printed
    record = json.loads((tmp_path / 'record.json').read_text())
    assert (record['status'], record['message']) == ('stopped', f'stopped by {name} after iteration 3')
    assert record['attempts'][0]['end_iter'] == 3


class SignalAt(Hook):
    """Sends SIGTERM in an iteration, or in the validation after it."""

    priority = 'HIGH'

    def __init__(self, iteration: int, in_validation: bool = False) -> None:
        self.iteration, self.in_validation = iteration, in_validation

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        if not self.in_validation and runner.iter + 1 == self.iteration:
            send(signal.SIGTERM)

    def after_val_iter(self, runner, *args, **kwargs) -> None:
        if self.in_validation and runner.iter == self.iteration:
            send(signal.SIGTERM)


@pytest.mark.parametrize('counted', [lambda config: config, by_epoch], ids=['iterations', 'epochs'])
@pytest.mark.parametrize(('iteration', 'in_validation'), [(5, False), (8, False), (12, False), (12, True)])
def test_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, counted, iteration: int, in_validation: bool
) -> None:
    whole = run(counted(toy_config(tmp_path / 'whole')))
    config = counted(toy_config(tmp_path / 'stopped'))
    config.custom_hooks += [dict(type='InterruptionHook')]
    stopped = run_with(config, SignalAt(iteration, in_validation))
    assert stopped.code == 143
    assert_equal(state_of(run(config, resume='auto')), state_of(whole))


def run_with(config, hook: Hook) -> SystemExit:
    config = config.copy()
    config.custom_hooks = [*config.custom_hooks, hook]
    with pytest.raises(SystemExit) as caught:
        run(config)
    return caught.value


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


def test_signals_to_the_group_do_not_reach_data_loading_processes(tmp_path: Path) -> None:
    groups: list[int] = []

    def look() -> None:  # until both have started, at most ten seconds
        deadline_s = time.monotonic() + 10
        while not groups or (os.getpgid(0) in groups and time.monotonic() < deadline_s):
            groups[:] = [os.getpgid(process.pid) for process in multiprocessing.active_children()]
            time.sleep(0.02)

    guarded_runner(tmp_path, iterations=2, num_workers=2, hooks=[AtIteration(1, look)]).train()
    assert len(groups) == 2
    assert os.getpgid(0) not in groups


def test_ctrl_c_twice_ends_the_record_as_stopped(tmp_path: Path) -> None:
    from armbench_mmdet.engine.failure import explained_failures

    def interrupt() -> None:
        raise KeyboardInterrupt

    runner = guarded_runner(tmp_path, hooks=[AtIteration(2, interrupt)])
    with pytest.raises(KeyboardInterrupt), explained_failures(runner):
        runner.train()
    assert json.loads((tmp_path / 'record.json').read_text())['status'] == 'stopped'


@pytest.mark.parametrize(
    ('environment', 'words', 'expected'),
    [
        ({}, ['python', 'tools/train.py', 'c.py'], 'python tools/train.py c.py --resume'),
        ({}, ['python', 'tools/train.py', 'c.py', '--resume'], 'python tools/train.py c.py --resume'),
        ({}, ['python', 'tools/train.py', '--resume=a.pth', 'c.py'], 'python tools/train.py c.py --resume'),
        ({}, ['python', 'bin/armbench', 'train', 'c', '--resume'], 'armbench train c --resume'),
        ({}, ['python', '-m', 'pytest'], 'armbench train {config} --work-dir {work_dir} --resume'),
        (
            {'TORCHELASTIC_RUN_ID': 'none', 'LOCAL_WORLD_SIZE': '2'},
            ['python', '-u', 'tools/train.py', 'c.py', '--launcher', 'pytorch'],
            'torchrun --standalone --nproc-per-node 2 tools/train.py c.py --launcher pytorch --resume',
        ),
        (
            {'TORCHELASTIC_RUN_ID': 'none', 'LOCAL_WORLD_SIZE': '2'},
            ['python', '-u', '-m', 'armbench_cli', 'train', 'c', '--launcher', 'pytorch'],
            'torchrun --standalone --nproc-per-node 2 -m armbench_cli train c --launcher pytorch --resume',
        ),
    ],
)
def test_command_that_resumes(tmp_path: Path, monkeypatch, environment, words, expected) -> None:
    monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, 'orig_argv', words)
    is_subcommand = 'train' in words  # armbench_cli says so in argv[0]
    monkeypatch.setattr(
        sys, 'argv', ['armbench train', *words[words.index('train') + 1 :]] if is_subcommand else words[2:]
    )
    runner = guarded_runner(tmp_path)
    assert resume_command(runner) == expected.format(config=tmp_path / 'guarded.py', work_dir=tmp_path)


DYING_PARENT = """
import multiprocessing, os, signal, time
from armbench_mmdet.hooks.interruption import _start_worker

def work(ready):
    _start_worker(0, None)
    ready.set()
    time.sleep(60)

context = multiprocessing.get_context('fork')
ready = context.Event()
worker = context.Process(target=work, args=(ready,))
worker.start()
ready.wait(60)
print(worker.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='Linux ends the children')
def test_workers_of_a_killed_run_end_with_it() -> None:
    killed = subprocess.run([sys.executable, '-c', DYING_PARENT], stdout=subprocess.PIPE, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    status = Path('/proc', killed.stdout.strip(), 'status')
    deadline_s = time.monotonic() + 10
    while status.is_file() and 'zombie' not in status.read_text() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not status.is_file() or 'zombie' in status.read_text()
