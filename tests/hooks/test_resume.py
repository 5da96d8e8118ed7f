"""Runs that end early: what is left, what is said, and that one that is resumed is the run without the interruption."""

import errno
import functools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from mmengine.config import Config
from torch.utils.data import DataLoader
from toy_run import EPOCHS, AtIteration, Points, assert_equal, run, state_of, toy_config

from armbench_mmdet.engine.checkpoints import load_weights, read_checkpoint
from armbench_mmdet.errors import InputError
from armbench_mmdet.hooks.checkpoint import InterruptionHook
from armbench_mmdet.launch import set_resume
from armbench_mmdet.run_folder import read_record
from armbench_mmdet.system import resume_command

WITHIN_EPOCHS = {**EPOCHS, 'default_hooks.checkpoint': dict(interval=1, by_epoch=False)}
KINDS: dict[str, dict[str, Any]] = {
    'iterations': {},
    'finite sampler': {'train_dataloader.sampler.type': 'DefaultSampler'},  # an iteration loop over epochs
    'accumulating': {'optim_wrapper.accumulative_counts': 3},  # checkpoints fall between the batches of a step
    'epochs': EPOCHS,
    'within epochs': WITHIN_EPOCHS,
}


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What is left of a run of a kind to which nothing has happened."""
    return functools.cache(lambda kind: state_of(run(toy_config(tmp_path_factory.mktemp('whole'), **KINDS[kind]))))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    ('deaths', 'workers'),
    [(['4', '7', 'val 9'], (0, 0)), (['val 6', '12', 'val 12'], (0, 0)), (['7'], (2, 1))],
    ids=str,
)
def test_a_resumed_run_is_the_uninterrupted_one(kind: str, deaths: list, workers: tuple, whole, tmp_path: Path) -> None:
    before, after = ({**KINDS[kind], 'train_dataloader.num_workers': count} for count in workers)
    for death in deaths:
        dies = dict(iteration=int(death.split()[-1]), in_validation='val' in death)
        run(toy_config(tmp_path, **before), 'auto', dies)
    assert_equal(state_of(run(toy_config(tmp_path, **after), 'auto')), whole(kind))


@pytest.mark.parametrize(('kind', 'left'), [('iterations', 3 + 3), ('finite sampler', 3 + 2), ('within epochs', 2)])
def test_resuming_loads_no_sample_of_the_past(kind: str, left: int, tmp_path: Path) -> None:
    run(toy_config(tmp_path, **KINDS[kind]), dies=dict(iteration=11))
    runner = run(toy_config(tmp_path, **KINDS[kind]), 'auto')  # from 10, or within epochs from 11, to 12
    assert len(runner.train_dataloader.dataset.loaded) == left


def test_resuming_a_finished_run_validates_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    state = state_of(run(toy_config(tmp_path)))
    capsys.readouterr()
    runner = run(toy_config(tmp_path), 'auto')
    assert 'finished at iteration 12: nothing to train, validating' in capsys.readouterr().out
    assert_equal(state_of(runner), state)
    assert runner.message_hub.get_scalar('val/toy/score').data[0].size == 4, 'the last one again'


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'randomness.seed': 4}, r'another optimizer, schedule or seed.*randomness\.seed: 3 → 4'),
        ({'model.width': 6}, r'net\.0\.weight \(5, 3\) ≠ \(6, 3\).*Resume with the config'),
        ({'train_dataloader.batch_size': 2}, r'iter_7\.pth\):\n  batch_size: 3 → 2\n  epoch_length: 3 → 4'),
        ({'optim_wrapper.optimizer.lr': 0.1}, r'optim_wrapper\.optimizer\.lr: 0\.05 → 0\.1.*load_from=.*iter_7\.pth'),
        ({'param_scheduler.0.T_max': 24}, r'param_scheduler\.0\.T_max: 12 → 24'),
        ({'auto_scale_lr': dict(enable=True, base_batch_size=6)}, r'auto_scale_lr\.enable: – → True'),
    ],
    ids=lambda value: '' if isinstance(value, str) else str(value),
)
def test_what_cannot_be_resumed_exactly_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    run(toy_config(tmp_path, **WITHIN_EPOCHS), dies=dict(iteration=7))
    config = toy_config(tmp_path, **WITHIN_EPOCHS, **changes)
    resolved = config.pretty_text
    with pytest.raises(InputError, match=f'(?s){message}'):
        run(config, 'auto')
    assert not [path for path in tmp_path.glob('*.py') if path.read_text() == resolved], 'the folder keeps its config'


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'train_cfg.max_epochs': 5}, 'train_cfg.max_epochs: 4 → 5'),
        ({'optim_wrapper.accumulative_counts': 2}, 'optim_wrapper.accumulative_counts: – → 2'),
        ({'optim_wrapper.clip_grad': dict(max_norm=0.1)}, 'optim_wrapper.clip_grad.max_norm: – → 0.1'),
        ({'train_dataloader.dataset.count': 11}, 'images: 8 → 11\n  epoch_length: 3 → 4'),
        ({'train_dataloader.num_workers': 1, 'train_dataloader.pin_memory': True}, None),
    ],
    ids=str,
)
def test_what_is_followed_from_here_on_is_said(changes: dict[str, Any], message, tmp_path: Path, capsys) -> None:
    run(toy_config(tmp_path, **EPOCHS), dies=dict(iteration=5))
    capsys.readouterr()
    run(toy_config(tmp_path, **EPOCHS, **changes), 'auto')
    printed = capsys.readouterr().out
    assert message in printed if message else 'train_dataloader' not in printed


def test_a_best_checkpoint_is_none_to_resume_from(tmp_path: Path) -> None:
    run(toy_config(tmp_path))
    best = next(tmp_path.glob('best_*.pth'))
    with pytest.raises(InputError, match=r'it holds no optimizer, param_schedulers.*load_from='):
        run(toy_config(tmp_path), str(best))
    assert load_weights(best)


def test_resume_starts_afresh_in_an_empty_folder_and_else_needs_a_whole_checkpoint(tmp_path: Path, capsys) -> None:
    config = Config(dict(work_dir=str(tmp_path), load_from='coco.pth'))
    set_resume(config, 'auto')
    assert (config.load_from, config.get('resume')) == ('coco.pth', None)
    assert 'no checkpoint yet' in capsys.readouterr().out
    (tmp_path / 'epoch_3.pth').touch()
    for resume in ('auto', 'missing.pth'):
        with pytest.raises(InputError, match='--resume must find'):
            set_resume(config, resume)


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


def test_a_full_disk_leaves_what_was_and_damage_costs_two_iterations(tmp_path: Path, whole: Callable, capsys) -> None:
    run_on_a_disk_that_fills(toy_config(tmp_path), 'iter_6')
    assert names(tmp_path, 'iter_*.pth') == ['iter_2.pth', 'iter_4.pth']
    with (tmp_path / 'iter_4.pth').open('r+b') as file:
        file.seek(-2000, 2)
        file.write(b'?' * 100)
    runner = run(toy_config(tmp_path), 'auto')
    printed = ''.join(capsys.readouterr())
    assert 'passed over' in printed
    assert 'iter_2.pth at iteration 2 of 12' in printed
    assert_equal(state_of(runner), whole('iterations'))


def test_the_best_until_now_stays_when_a_better_one_cannot_be_written(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    config.default_hooks.checkpoint.interval = -1
    run_on_a_disk_that_fills(config, 'best_toy_score_iter_6')
    assert 'best_toy_score_iter_3.pth' in names(tmp_path)


@pytest.mark.parametrize('kind', ['iterations', 'epochs'])
@pytest.mark.parametrize(
    ('name', 'status', 'iteration', 'in_validation'),
    [('SIGTERM', 143, 5, False), ('SIGINT', 130, 8, False), ('SIGUSR1', 138, 12, False), ('SIGTERM', 143, 12, True)],
)
def test_run_that_is_stopped_saves_and_goes_on_as_if_it_had_not_been(
    name, status, iteration, in_validation, kind, whole, tmp_path, capfd, monkeypatch
) -> None:
    command = ['python', 'tools/train.py', 'configs/a b.py', '--resume', 'old.pth', '--amp']
    monkeypatch.setattr(sys, 'orig_argv', command)
    number = getattr(signal, name)
    before = signal.getsignal(number)
    config = toy_config(tmp_path, **KINDS[kind])
    stops = AtIteration(iteration, lambda: signal.raise_signal(number), in_validation)
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
    assert_equal(state_of(run(config, resume='auto')), whole(kind))
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
    hook.after_train(Mock())  # gives torch its signal handler back


def load_and_die(file: Path) -> None:
    """Runs in a process of its own."""
    loader = DataLoader(Points(), num_workers=1, collate_fn=list)
    runner: Any = SimpleNamespace(train_loop=SimpleNamespace(dataloader=loader), val_loop=None)
    InterruptionHook().before_train(runner)
    batches = iter(loader)
    next(batches)
    (worker,) = multiprocessing.active_children()
    file.write_text(f'{worker.pid} {os.getpgid(worker.pid or 0)}')
    signal.raise_signal(signal.SIGKILL)


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
