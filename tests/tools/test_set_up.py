"""The doctor where torch's driver does not answer, and the Makefile with a stand-in for Python."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).resolve().parents[2]


def no_driver() -> int:
    raise RuntimeError('Found no NVIDIA driver on your system.\nPlease check.')


def answers_nothing(index: int) -> str:
    raise RuntimeError('CUDA error: unknown error')


@pytest.mark.parametrize(
    ('device_count', 'said'),
    [(lambda: 0, 'no GPU answers'), (no_driver, 'Found no NVIDIA driver'), (lambda: 1, 'CUDA error: unknown error')],
    ids=['no device', 'no driver', 'a device that fails'],
)
def test_a_driver_that_does_not_answer_is_a_problem_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, device_count, said: str
) -> None:
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(torch.cuda, 'device_count', device_count)
    monkeypatch.setattr(torch.cuda, 'get_device_name', answers_nothing)
    monkeypatch.setattr(sys, 'argv', ['doctor.py'])
    doctor = runpy.run_path(str(REPO / 'tools/doctor.py'))
    assert doctor['main'](doctor['parse_args']()) == 2
    printed = capsys.readouterr().out
    assert said in printed
    assert 'torch was built for CUDA 13.0\n' + ' ' * 20 + ' -> check the driver: nvidia-smi' in printed


def make(venv: Path, target: str, failing: str = 'nothing', status: int = 0) -> subprocess.CompletedProcess[str]:
    """Make a target where every command that names ``failing`` ends with ``status``."""
    python = venv / 'bin/python'
    python.parent.mkdir(exist_ok=True)
    python.write_text(f'#!/bin/sh\necho "python $*"\ncase "$*" in *{failing}*) exit {status};; esac\n')
    python.chmod(0o755)
    unset = ('MAKEFLAGS', 'MAKELEVEL', 'MFLAGS')  # the tests may run under make themselves
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = ['make', target, f'VENV={venv}']
    return subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(('status', 'is_set_up'), [(0, True), (2, True), (1, False)])
def test_set_up_finishes_with_the_doctors_problems_as_a_warning(tmp_path: Path, status: int, is_set_up: bool) -> None:
    done = make(tmp_path, 'setup', 'doctor', status)
    assert (done.returncode == 0) == is_set_up, done.stderr
    assert (tmp_path / '.armbench-mmdet').exists() == is_set_up
    assert ('\nwarning: set-up is complete' in done.stdout) == (status == 2)


def test_the_demo_trains_and_tests_both_models_and_reports_unless_one_fails(tmp_path: Path) -> None:
    done = make(tmp_path, 'demo')
    assert done.returncode == 0, done.stderr
    assert re.findall(r'tools/(\w+)\.py', done.stdout)[-5:] == ['train', 'test', 'train', 'test', 'report']
    assert done.stdout.rstrip().endswith('_minibench --out work_dirs/report')
    failed = make(tmp_path, 'demo', 'train.py', 2)
    assert failed.returncode != 0
    assert re.findall(r'tools/(\w+)\.py', failed.stdout)[-1] == 'train'
