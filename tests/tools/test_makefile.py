"""The Makefile with a stand-in for Python, which says how it is called and ends as it is told to."""

import os
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
RUNS = [
    ('mask_rcnn', 'mask-rcnn_r18-w32_fpn-64_minibench'),
    ('mask2former', 'mask2former_r18-w32_q30_6e_minibench'),
]


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


def test_the_demo_trains_one_model_from_the_other_and_reports_on_both(tmp_path: Path) -> None:
    done = make(tmp_path, 'demo')
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    expected = []
    for folder, name in RUNS:
        leaf, run = f'configs/{folder}/{name}.py', f'work_dirs/{name}'
        expected += [
            f'python tools/train.py {leaf} --work-dir {run}',
            f'python tools/test.py {leaf} {run} --subset all',
        ]
    runs = ' '.join(f'work_dirs/{name}' for _, name in RUNS)
    assert lines[-5:] == [*expected, f'python tools/report.py {runs} --out work_dirs/report']


def test_a_training_that_fails_ends_the_demo(tmp_path: Path) -> None:
    done = make(tmp_path, 'demo', 'train.py', 2)
    assert done.returncode != 0
    assert 'tools/test.py' not in done.stdout
    assert 'tools/report.py' not in done.stdout
