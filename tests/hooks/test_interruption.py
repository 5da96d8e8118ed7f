import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_run import EPOCHS, AtIteration, assert_equal, guarded_runner, run, state_of, toy_config

from armbench_mmdet.engine.checkpoints import read_checkpoint
from armbench_mmdet.hooks.checkpoint import InterruptionHook
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
    printed = ''.join(capfd.readouterr())
    assert f'{name}: finishing this iteration' in printed
    assert f'stopped by {name} after iteration 3; to go on:' in printed
    assert "  python tools/train.py 'configs/a b.py' --amp --resume\n" in printed
    record = json.loads((tmp_path / 'record.json').read_text())
    assert (record['status'], record['message']) == ('stopped', f'stopped by {name} after iteration 3')
    assert record['attempts'][0]['end_iter'] == 3


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


TRAIN, TORCHRUN = 'python tools/train.py c.py', 'torchrun --standalone --nproc-per-node 2'


@pytest.mark.parametrize(
    ('is_torchrun', 'words', 'expected'),
    [
        (False, TRAIN, f'{TRAIN} --resume'),
        (False, 'python tools/train.py --resume=a.pth c.py', f'{TRAIN} --resume'),
        (False, 'python bin/armbench train c --resume', 'armbench train c --resume'),
        (False, 'python -m pytest', 'armbench train {folder}/toy.py --work-dir {folder} --resume'),
        (True, f'{TRAIN} --launcher pytorch', f'{TORCHRUN} tools/train.py c.py --launcher pytorch --resume'),
        (True, 'python -m armbench_cli train c', f'{TORCHRUN} -m armbench_cli train c --resume'),
    ],
)
def test_command_that_resumes(tmp_path, monkeypatch, is_torchrun: bool, words: str, expected: str) -> None:
    monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
    if is_torchrun:
        monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
        monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    typed = words.split()
    monkeypatch.setattr(sys, 'orig_argv', typed)
    is_subcommand = 'train' in typed  # armbench_cli says so in argv[0]
    own = ['armbench train', *typed[typed.index('train') + 1 :]] if is_subcommand else typed[1:]
    monkeypatch.setattr(sys, 'argv', own)
    assert resume_command(guarded_runner(tmp_path)) == expected.format(folder=tmp_path)


DYING_PARENT = """
import multiprocessing, os, signal, time
from armbench_mmdet.hooks.checkpoint import _start_worker

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
