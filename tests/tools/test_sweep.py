"""``tools/sweep.py`` as users start it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SPACE = 'configs/sweeps/mask-rcnn_minibench.py'


def start(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, 'tools/sweep.py', *map(str, arguments)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize('option', ['--n-trials', '--workers'])
def test_counts_start_at_one(option: str) -> None:
    done = start(SPACE, option, '0')
    assert done.returncode == 2
    assert f'{option} must be at least 1' in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['configs/nowhere.py'], 'config must be an existing file'),
        ([SPACE, '--storage', 'postgresql://127.0.0.1:1/study'], '--storage must be reachable'),
        ([SPACE, '--study', 'a/b'], '--study must be letters'),
        (['configs/_base_/schedules/1x.py'], 'search space must be free of problems'),
    ],
)
def test_bad_input_is_one_message_and_status_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = start(*arguments, '--work-dir', tmp_path / 'study')
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
    assert not list(tmp_path.glob('study/trial_*'))
