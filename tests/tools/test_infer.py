"""tools/infer.py as users start it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from armbench_mmdet.configs import load_config

REPO = Path(__file__).resolve().parents[2]
LEAF = 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'

pytestmark = pytest.mark.slow


def start(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, 'tools/infer.py', *map(str, arguments)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    init_default_scope('mmdet')
    path = tmp_path_factory.mktemp('weights') / 'random.pth'
    torch.save({'state_dict': MODELS.build(load_config(REPO / LEAF).model).state_dict()}, path)
    return path


def test_a_folder_with_a_broken_image(checkpoint: Path, minibench_root: Path, tmp_path: Path) -> None:
    (tmp_path / 'broken.jpg').touch()
    folder = minibench_root / 'zoomed-out-tote-transfer-set/images'
    options = ('--out', tmp_path / 'out', '--score-threshold', '0.3', '--batch-size', '2', '--device', 'cpu')
    done = start(LEAF, checkpoint, folder, tmp_path / 'broken.jpg', *options)
    assert done.returncode == 0, done.stderr
    images = len(list(folder.iterdir()))
    assert f'{images} images predicted, 1 left out' in done.stdout
    assert 'broken.jpg: image must be readable, got an empty file' in done.stderr
    assert f'{images + 1}/{images + 1}' in done.stderr
    for noise in ('Warning', 'warning', 'OneDL', 'mmengine - '):
        assert noise not in done.stderr + done.stdout
    index = json.loads((tmp_path / 'out/images.json').read_text())
    assert all((tmp_path / 'out' / image['overlay']).is_file() for image in index['images'])


@pytest.mark.parametrize(
    ('inputs', 'options', 'message'),
    [
        (['nowhere.jpg'], [], 'nowhere.jpg: no such file or folder'),
        (['pyproject.toml'], [], 'got none of 1 that is: pyproject.toml'),
        (['docs'], ['--device', 'cuda:99'], 'device must be'),
    ],
)
def test_bad_input_is_one_message_and_status_2(
    inputs: list[str], options: list[str], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    done = start(LEAF, checkpoint, *inputs, '--out', tmp_path / 'out', *options)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith('error: ')
