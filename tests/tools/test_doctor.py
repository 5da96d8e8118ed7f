"""The doctor, and a set-up that it does not stop: a machine where torch's driver does not answer."""

from __future__ import annotations

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


@pytest.mark.parametrize(('status', 'is_set_up'), [(0, True), (2, True), (1, False)])
def test_set_up_finishes_whatever_the_doctor_finds(tmp_path: Path, status: int, is_set_up: bool) -> None:
    python = tmp_path / 'bin/python'
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\ncase "$*" in *doctor*) echo "! cuda"; exit {status};; esac\n')  # installs nothing
    python.chmod(0o755)
    done = subprocess.run(
        ['make', 'setup', f'VENV={tmp_path}'], cwd=REPO, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode == 0) == is_set_up, done.stderr
    assert (tmp_path / '.armbench-mmdet').exists() == is_set_up
    assert ('\nwarning: set-up is complete' in done.stdout) == (status == 2)
