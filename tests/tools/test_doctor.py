"""The doctor on a machine where torch's driver does not answer."""

import runpy
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
