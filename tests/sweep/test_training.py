"""The training process and the hook inside it."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.registry import HOOKS, init_default_scope

from armbench_mmdet.engine.checkpoints import write_checkpoint
from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.training import VARIABLE, SweepReportHook, Training, training_command
from armbench_mmdet.sweep.workers import training_environment
from armbench_mmdet.system import usable_cores


def give(monkeypatch: pytest.MonkeyPatch, folder: Path, pid: int) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps({'folder': str(folder), 'metrics': ['score'], 'worker_pid': pid}))


def test_without_a_sweep_the_hook_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    hook = SweepReportHook()
    hook.after_train_iter(SimpleNamespace(), 0)
    hook.after_val_epoch(SimpleNamespace(), {})


def test_unknown_metric_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    give(monkeypatch, tmp_path, os.getpid())
    runner = SimpleNamespace(val_loop=SimpleNamespace(evaluator=SimpleNamespace(metrics=[])))
    with pytest.raises(InputError, match=r"objective and constraints must be among .*, coco/bbox_mAP; got \['score'\]"):
        SweepReportHook().after_val_epoch(runner, {'coco/bbox_mAP': 0.5})


def test_training_ends_when_its_worker_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    give(monkeypatch, tmp_path, 2**22 + 1)
    hook = SweepReportHook()
    for step in (hook.after_train_iter, hook.after_val_iter):
        with pytest.raises(ProcessLookupError):
            step(SimpleNamespace(), 0)


def test_attempt_goes_on_from_the_checkpoint_of_the_one_before(tmp_path: Path) -> None:
    before, folder = tmp_path / 'before', tmp_path / 'now'
    (before / 'run').mkdir(parents=True)
    folder.mkdir()
    (before / 'reports.jsonl').write_text('{"iteration": 5, "values": {"score": 0.5}}\n' * 2)
    for checkpoint in (None, 'interrupted.pth'):
        if checkpoint:
            write_checkpoint(before / 'run' / checkpoint, {})
        training = Training(folder, ['echo'], os.environ, ['score'], before)
        assert training.has_ended(30)
        words = (folder / 'train.log').read_text()
        assert (f'--resume {before}/run/interrupted.pth' in words) is bool(checkpoint)
        assert training.reports() == [{'score': 0.5}] * bool(checkpoint), 'a validation done twice counts once'
    init_default_scope('mmdet')
    hook = words.split()[1]
    assert type(HOOKS.build({'type': hook.partition('=')[2]})) is SweepReportHook


@pytest.mark.parametrize('devices', [None, '0,1'])
def test_command_of_a_trial(devices: str | None) -> None:
    words = training_command(['python', 'train.py'], Path('config.py'), Path('run'), devices)
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2'] if devices else []
    end = ['--launcher', 'pytorch'] if devices else []
    assert words == ['python', *launcher, 'train.py', 'config.py', '--work-dir', 'run', *end]


def test_trainings_share_the_cores_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'NUMBA_NUM_THREADS', 'OMP_WAIT_POLICY'):
        monkeypatch.delenv(name, raising=False)
    assert training_environment(1, None)['OMP_NUM_THREADS'] == str(usable_cores())
    shared = training_environment(usable_cores(), '0,1')
    assert shared['MKL_NUM_THREADS'] == shared['NUMBA_NUM_THREADS'] == '1'
    assert (shared['OMP_WAIT_POLICY'], shared['CUDA_VISIBLE_DEVICES']) == ('PASSIVE', '0,1')
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    assert training_environment(1, None)['OMP_NUM_THREADS'] == '7'
