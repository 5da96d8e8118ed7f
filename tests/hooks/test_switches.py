"""Every hook of a run has a name, and can be switched off alone."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from toy_run import run, toy_config

from armbench_mmdet import configs

RUNTIME = Path(__file__).parents[2] / 'configs/_base_/default_runtime.py'
HOOKS: dict[str, Any] = runpy.run_path(str(RUNTIME))['default_hooks']
NEED_IMAGES = ('visualization', 'num_class_check', 'validation_loss', 'self_test')
OTHERS = [name for name in HOOKS if name not in NEED_IMAGES]


def hooks_of(work_dir: Path, *options: str) -> list[str]:
    """The hooks of a toy run with every default hook that does not need images, in their order."""
    config = toy_config(work_dir)
    config.custom_hooks = []
    config.default_hooks = Config({name: HOOKS[name] for name in OTHERS})._cfg_dict | config.default_hooks
    config.train_cfg.update(max_iters=2, val_interval=2)
    config.merge_from_dict(configs.parse_options(options))
    runner = run(config)
    assert runner.iter == 2
    return [type(hook).__name__ for hook in runner.hooks]


@pytest.mark.parametrize('option', [f'{name}.enabled=False' for name in OTHERS] + ['timer=None', 'seeding=None'])
def test_every_hook_can_be_switched_off_alone(option: str, tmp_path: Path) -> None:
    kind = HOOKS[option.partition('.')[0].partition('=')[0]]['type']
    assert kind not in hooks_of(tmp_path, f'default_hooks.{option}')


def test_hooks_come_in_the_order_that_they_need(tmp_path: Path) -> None:
    order = hooks_of(tmp_path)
    assert order[-3:] == ['InterruptionHook', 'RunRecordHook', 'ResumeHook']
    assert order.index('AtomicCheckpointHook') < order.index('InterruptionHook')
    assert order.index('RuntimeInfoHook') < order.index('LossGuardHook') < order.index('LoggerHook')
