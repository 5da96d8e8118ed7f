"""The hook in the training process, alone and on two ranks."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.registry import HOOKS, init_default_scope

from armbench_mmdet.errors import InputError
from armbench_mmdet.hooks import sweep_report
from armbench_mmdet.hooks.sweep_report import SweepReportHook
from armbench_mmdet.sweep.channel import VARIABLE, Reports
from armbench_mmdet.sweep.trial import HOOKS as OPTIONS


@pytest.fixture
def runner() -> SimpleNamespace:
    return SimpleNamespace(train_loop=SimpleNamespace(stop_training=False), logger=logging.getLogger('test'))


def give(monkeypatch: pytest.MonkeyPatch, folder: Path, pid: int) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps({'folder': str(folder), 'objective': 'score', 'worker_pid': pid}))


def test_without_a_sweep_it_does_nothing(runner: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    hook = SweepReportHook()
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    hook.after_val_epoch(runner, {})
    assert not runner.train_loop.stop_training


@pytest.mark.parametrize('stop', [False, True])
def test_it_reports_and_obeys(
    stop: bool, runner: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    give(monkeypatch, tmp_path, os.getpid())
    Reports(tmp_path).answer(stop)  # the answer is there before the question
    SweepReportHook().after_val_epoch(runner, {'score': 0.25, 'other': 1.0})
    assert Reports(tmp_path).values() == [0.25]
    assert runner.train_loop.stop_training is stop


def test_unknown_metric_is_refused(runner: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    give(monkeypatch, tmp_path, os.getpid())
    with pytest.raises(InputError, match=r"objective must be one of .*, coco/bbox_mAP; got 'score'"):
        SweepReportHook().after_val_epoch(runner, {'coco/bbox_mAP': 0.5})


def test_training_ends_when_its_worker_is_gone(
    runner: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    give(monkeypatch, tmp_path, 2**22 + 1)
    for step in (lambda hook: hook.before_train(runner), lambda hook: hook.after_train_iter(runner, 0)):
        with pytest.raises(SystemExit):
            step(SweepReportHook())


def test_it_is_built_by_its_path() -> None:
    init_default_scope('mmdet')
    name = next(option.partition('=')[2] for option in OPTIONS if 'sweep.type' in option)
    assert type(HOOKS.build({'type': name})) is sweep_report.SweepReportHook


RANK = """
import logging, sys
from types import SimpleNamespace
import torch.distributed as dist
from armbench_mmdet.hooks.sweep_report import SweepReportHook
dist.init_process_group('gloo')
runner = SimpleNamespace(train_loop=SimpleNamespace(stop_training=False), logger=logging.getLogger('test'))
SweepReportHook().after_val_epoch(runner, {'score': 0.25})
print(f'rank {dist.get_rank()} stops: {runner.train_loop.stop_training}', flush=True)
"""


@pytest.mark.slow
def test_only_rank_0_reports_and_all_ranks_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    give(monkeypatch, tmp_path, os.getpid())
    Reports(tmp_path).answer(stop=True)
    (tmp_path / 'rank.py').write_text(RANK)
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    done = subprocess.run(
        [*command, str(tmp_path / 'rank.py')], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 'rank 0 stops: True' in done.stdout
    assert 'rank 1 stops: True' in done.stdout
    assert Reports(tmp_path).values() == [0.25]
