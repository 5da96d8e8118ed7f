"""The training process and the hook inside it."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.registry import HOOKS, init_default_scope

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.training import VARIABLE, SweepReportHook, Training, fresh_folder


def give(monkeypatch: pytest.MonkeyPatch, folder: Path, pid: int) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps({'folder': str(folder), 'metrics': ['score'], 'worker_pid': pid}))


def test_without_a_sweep_the_hook_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    hook = SweepReportHook()
    hook.before_train(SimpleNamespace())
    hook.after_train_iter(SimpleNamespace(), 0)
    hook.after_val_epoch(SimpleNamespace(), {})


def test_unknown_metric_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    give(monkeypatch, tmp_path, os.getpid())
    runner = SimpleNamespace(val_loop=SimpleNamespace(evaluator=SimpleNamespace(metrics=[])))
    with pytest.raises(InputError, match=r"objective and constraints must be among .*, coco/bbox_mAP; got 'score'"):
        SweepReportHook().after_val_epoch(runner, {'coco/bbox_mAP': 0.5})


def test_training_ends_when_its_worker_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    give(monkeypatch, tmp_path, 2**22 + 1)
    hook = SweepReportHook()
    for step, arguments in ((hook.before_train, ()), (hook.after_train_iter, (0,)), (hook.after_val_iter, (0,))):
        with pytest.raises(SystemExit):
            step(SimpleNamespace(), *arguments)


def test_folder_of_an_older_study_is_moved_aside(tmp_path: Path) -> None:
    for expected in ([], ['trial_0007.old1'], ['trial_0007.old1', 'trial_0007.old2']):
        folder = fresh_folder(tmp_path, 7)
        assert not list(folder.iterdir())
        (folder / 'config.py').touch()
        assert sorted(path.name for path in tmp_path.glob('*.old*')) == expected


def test_attempt_goes_on_from_the_checkpoint_of_the_one_before(tmp_path: Path) -> None:
    before = fresh_folder(tmp_path, 0)
    (before / 'config.py').write_text('# trial 0\nlr = 0.1\n')
    (before / 'reports.jsonl').write_text('{"iteration": 5, "values": {"score": 0.5}}\n')
    (before / 'run').mkdir()
    for number, text, expected in ((1, 'lr = 0.1', 'no'), (2, 'lr = 0.1', 'yes'), (3, 'lr = 0.2', 'no')):
        folder = fresh_folder(tmp_path, number)
        (folder / 'config.py').write_text(f'# trial {number}\n{text}\n')
        if number == 2:
            (before / 'run/interrupted.pth').touch()
        training = Training(folder, ['echo', 'train.py'], ['score'], None, {}, before)
        assert training.has_ended(30)
        words = (folder / 'train.log').read_text().split()
        assert (f'--resume {before}/run/interrupted.pth' in ' '.join(words)) is (expected == 'yes')
        assert training.reports() == [{'score': 0.5}] * (expected == 'yes')
    (folder / 'reports.jsonl').write_text((before / 'reports.jsonl').read_text() * 2)
    assert training.reports() == [{'score': 0.5}], 'a validation that was done again'


@pytest.mark.parametrize('devices', [None, '3', '0,1'])
def test_command_devices_and_threads(devices: str | None, tmp_path: Path) -> None:
    script = tmp_path / 'show.sh'
    script.write_text('echo "$CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS $@"\n')
    python = tmp_path / 'python'
    python.write_text(f'#!/bin/sh\nexec sh {script} "$@"\n')
    python.chmod(0o755)
    training = Training(
        fresh_folder(tmp_path, 0), [str(python), 'train.py'], ['score'], devices, {'OMP_NUM_THREADS': '5'}
    )
    assert training.has_ended(30)
    seen, threads, *words = (training.folder / 'train.log').read_text().split()
    if devices is None:
        seen, threads, words = devices, seen, [threads, *words]
    assert (seen, threads) == (devices, '5')
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2'] if devices == '0,1' else []
    assert words[: len(launcher) + 4] == [
        *launcher,
        'train.py',
        f'{training.folder}/config.py',
        '--work-dir',
        f'{training.folder}/run',
    ]
    assert ('--launcher' in words) is (devices == '0,1')
    init_default_scope('mmdet')
    assert type(HOOKS.build({'type': words[-1].partition('=')[2]})) is SweepReportHook
