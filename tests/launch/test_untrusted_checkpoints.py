"""A checkpoint that would run code, given to the command lines."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from test_runs import LEAF, REPO

from armbench_cli import run_tool
from armbench_mmdet.configs import load_config


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """Weights that fit the minibench Mask R-CNN, and an attack."""
    init_default_scope('mmdet')
    state = MODELS.build(load_config(LEAF).model).state_dict()
    torch.save({'state_dict': state, 'meta': {'note': Attack(tmp_path / 'made')}}, tmp_path / 'evil.pth')
    return tmp_path / 'evil.pth'


def start(monkeypatch: pytest.MonkeyPatch, tool: str, *arguments: str | Path) -> int:
    """The exit status of a tool, run in this process."""
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
    module = runpy.run_path(str(REPO / 'tools' / tool))
    arguments = module['parse_args']()
    return run_tool(lambda: module['main'](arguments))


@pytest.mark.parametrize(
    'command',
    [
        ['train.py', LEAF, '--cfg-options', 'load_from={evil}'],
        ['train.py', LEAF, '--resume', '{evil}'],
        ['train.py', LEAF, '--cfg-options', 'model.init_cfg.type=Pretrained', 'model.init_cfg.checkpoint={evil}'],
        ['test.py', LEAF, '{evil}'],
        ['export_weights.py', '{evil}', '{folder}/out.safetensors'],
    ],
    ids=['load_from', 'resume', 'init_cfg', 'test', 'export'],
)
def test_no_command_runs_its_code(
    command: list[Any],
    evil: Path,
    minibench_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    words = [str(word).format(evil=evil, folder=tmp_path) for word in command]
    if command[0] != 'export_weights.py':
        words += ['--work-dir', str(tmp_path / 'run'), '--data-root', str(minibench_root)]
    assert start(monkeypatch, *words) == 2
    assert 'evil.pth' in (message := capsys.readouterr().err)
    assert 'could run code; if you trust its author, load it with --trust-checkpoint' in message
    assert not (tmp_path / 'made').exists()


@pytest.mark.slow
def test_a_trusted_one_is_evaluated(
    evil: Path, minibench_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ['--work-dir', tmp_path / 'run', '--data-root', minibench_root, '--trust-checkpoint']
    assert start(monkeypatch, 'test.py', LEAF, evil, *options) == 0
    assert (tmp_path / 'made').exists()
    assert (tmp_path / 'run/results/mix-object-tote_test.json').is_file()


@pytest.mark.slow
def test_a_trusted_one_is_trained_from(
    evil: Path, minibench_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ['--work-dir', tmp_path / 'run', '--data-root', minibench_root, '--trust-checkpoint']
    short = ['train_cfg.max_iters=1', 'val_cfg=None', 'val_dataloader=None', 'val_evaluator=None']
    schedule = ['param_scheduler=None', 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
    changes = ['--cfg-options', f'load_from={evil}', *short, *schedule]
    assert start(monkeypatch, 'train.py', LEAF, *options, *changes) == 0
    assert (tmp_path / 'made').exists()
