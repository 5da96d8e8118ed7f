"""The training process and the hook inside it."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from armbench_mmdet.engine.checkpoints import write_checkpoint
from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.training import VARIABLE, SweepReportHook, Training, training_command
from armbench_mmdet.sweep.workers import training_environment
from armbench_mmdet.system import usable_cores


def test_hook_reports_to_its_worker_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hook(**given: object) -> SweepReportHook:
        monkeypatch.setenv(VARIABLE, json.dumps(given))
        return SweepReportHook()

    runner = SimpleNamespace(iter=3, val_loop=SimpleNamespace(evaluator=SimpleNamespace(metrics=[])))
    alone = hook()  # of a dumped config, trained without a sweep
    alone.after_train_iter(runner, 0)
    alone.after_val_epoch(runner, {})
    watched = hook(folder=str(tmp_path), metrics=['score'], worker_pid=os.getpid())
    watched.after_train_iter(runner, 0)
    watched.after_val_epoch(runner, {'score': None, 'other': 1.0})
    assert (tmp_path / 'reports.jsonl').read_text() == '{"iteration": 3, "values": {"score": NaN}}\n'
    with pytest.raises(InputError, match=r"objective and constraints must be among .*, coco/bbox_mAP; got \['score'\]"):
        watched.after_val_epoch(runner, {'coco/bbox_mAP': 0.5})
    orphan = hook(folder=str(tmp_path), metrics=['score'], worker_pid=2**22 + 1)
    for step in (orphan.after_train_iter, orphan.after_val_iter):
        with pytest.raises(ProcessLookupError):
            step(runner, 0)


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
