"""A checkpoint that would run code, given to the command lines."""

import runpy
import sys
from pathlib import Path

import pytest
from small_models import LEAVES, REPO, Attack, write_weights

from armbench_cli import run_tool
from armbench_mmdet.configs import load_config

LEAF = str(LEAVES['mask_rcnn'])
INIT_CFG = ['model.init_cfg.type=Pretrained', 'model.init_cfg.checkpoint={evil}']
SHORT = ['train_cfg.max_iters=1', 'val_cfg=None', 'val_dataloader=None', 'val_evaluator=None', 'param_scheduler=None']
SHORT += ['train_dataloader.num_workers=0']


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """Weights that fit the minibench Mask R-CNN, and an attack."""
    return write_weights(load_config(LEAF), tmp_path / 'evil.pth', meta={'note': Attack(tmp_path / 'made')})


def start(monkeypatch: pytest.MonkeyPatch, words: list[str], evil: Path, data: Path) -> int:
    """The exit status of a tool, run in this process."""
    words = [word.format(evil=evil, folder=evil.parent) for word in words]
    if words[0] != 'export_weights.py':
        words[1:1] = ['--work-dir', str(evil.parent / 'run'), '--data-root', str(data)]
    monkeypatch.setattr(sys, 'argv', words)
    module = runpy.run_path(str(REPO / 'tools' / words[0]))
    arguments = module['parse_args']()
    return run_tool(lambda: module['main'](arguments))


@pytest.mark.parametrize(
    'command',
    [
        ['train.py', LEAF, '--cfg-options', 'load_from={evil}'],
        ['train.py', LEAF, '--resume', '{evil}'],
        ['train.py', LEAF, '--cfg-options', *INIT_CFG],
        ['train.py', LEAF, '--cfg-options', *INIT_CFG, 'model.init_cfg.prefix=backbone'],
        ['test.py', LEAF, '{evil}'],
        ['export_weights.py', '{evil}', '{folder}/out.safetensors'],
    ],
    ids=['load_from', 'resume', 'init_cfg', 'part of a model', 'test', 'export'],
)
def test_no_command_runs_its_code(command: list[str], evil: Path, minibench_root: Path, monkeypatch, capsys) -> None:
    assert start(monkeypatch, command, evil, minibench_root) == 2
    assert 'evil.pth' in (message := capsys.readouterr().err)
    assert 'could run code; if you trust its author, load it with --trust-checkpoint' in message
    assert not (evil.parent / 'made').exists()


@pytest.mark.slow
def test_a_trusted_one_is_used(evil: Path, minibench_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, run = evil.parent / 'made', evil.parent / 'run'
    for command, left in (
        (['test.py', LEAF, '{evil}'], 'results/mix-object-tote_test.json'),
        (['train.py', LEAF, '--cfg-options', 'load_from={evil}', *SHORT], 'record.json'),
    ):
        assert start(monkeypatch, [*command[:2], '--trust-checkpoint', *command[2:]], evil, minibench_root) == 0
        assert (run / left).is_file()
        made.unlink()
