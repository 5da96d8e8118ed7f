"""The command lines as users start them: their exit status and their one message."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
LEAF = 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'
ARMBENCH = 'configs/mask_rcnn/mask-rcnn_r50_fpn_1x_armbench-mix.py'


def start(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)


TOOLS = sorted(path.name for path in (REPO / 'tools').glob('*.py'))


@pytest.mark.parametrize('tool', TOOLS)
def test_help(tool: str) -> None:
    done = start(f'tools/{tool}', '--help')
    assert done.returncode == 0
    assert done.stdout.startswith('usage:')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['tools/train.py', 'configs/nowhere.py'], 'config must be an existing file'),
        (['tools/train.py', LEAF, '--resume', 'nowhere.pth'], '--resume must find an existing checkpoint'),
        (['tools/test.py', LEAF, 'nowhere.pth'], 'checkpoint must be a file'),
        (['tools/test.py', LEAF, 'pyproject.toml'], 'checkpoint must be a readable file'),
        (
            ['tools/train.py', ARMBENCH, '--data-root', 'nowhere', '--cfg-options', 'model.backbone.init_cfg=None'],
            'nowhere',
        ),
    ],
)
def test_bad_input_is_one_message_and_status_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = start(*arguments, '--work-dir', tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith('error: ')
