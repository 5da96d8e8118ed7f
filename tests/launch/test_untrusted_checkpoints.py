"""A checkpoint that would run code, given to the command lines."""

from collections.abc import Callable
from pathlib import Path

import pytest
from small_models import LEAVES, Attack, write_weights

from armbench_mmdet.configs import load_config

LEAF = str(LEAVES['mask_rcnn'])
LOAD_FROM = ['--cfg-options', 'load_from={evil}']
INIT_CFG = ['--cfg-options', 'model.init_cfg.type=Pretrained', 'model.init_cfg.checkpoint={evil}']
SHORT = ['train_cfg.max_iters=1', 'val_cfg=None', 'val_dataloader=None', 'val_evaluator=None', 'param_scheduler=None']
SHORT += ['train_dataloader.num_workers=0']


@pytest.fixture
def start(tool: Callable, minibench_root: Path, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Starts a tool with weights that fit the minibench Mask R-CNN, and an attack: its exit status and error output."""
    evil = write_weights(load_config(LEAF), tmp_path / 'evil.pth', meta={'note': Attack(tmp_path / 'made')})

    def started(name: str, *words: str) -> tuple[int, str]:
        place = [] if name == 'export_weights.py' else ['--work-dir', tmp_path / 'run', '--data-root', minibench_root]
        status, _, said = tool(name, *place, *(word.format(evil=evil, folder=tmp_path) for word in words))
        return status, said

    return started


@pytest.mark.parametrize(
    'command',
    [
        ['train.py', LEAF, *LOAD_FROM],
        ['train.py', LEAF, '--resume', '{evil}'],
        ['train.py', LEAF, *INIT_CFG],
        ['train.py', LEAF, *INIT_CFG, 'model.init_cfg.prefix=backbone'],
        ['test.py', LEAF, '{evil}'],
        ['export_weights.py', '{evil}', '{folder}/out.safetensors'],
    ],
    ids=['load_from', 'resume', 'init_cfg', 'part of a model', 'test', 'export'],
)
def test_no_command_runs_its_code(command: list[str], start: Callable, tmp_path: Path) -> None:
    status, said = start(*command)
    assert status == 2
    assert 'evil.pth' in said
    assert 'could run code; if you trust its author, load it with --trust-checkpoint' in said
    assert not (tmp_path / 'made').exists()


@pytest.mark.slow
def test_a_trusted_one_is_used(start: Callable, tmp_path: Path) -> None:
    for command, left in (
        (['test.py', LEAF, '{evil}'], 'results/mix-object-tote_test.json'),
        (['train.py', LEAF, *LOAD_FROM, *SHORT], 'record.json'),
    ):
        assert start(command[0], '--trust-checkpoint', *command[1:])[0] == 0
        assert (tmp_path / 'run' / left).is_file()
        (tmp_path / 'made').unlink()
