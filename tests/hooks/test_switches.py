"""Every hook of a run has a name, and can be switched off alone."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from toy_run import run, toy_config

from armbench_mmdet import configs
from armbench_mmdet.engine import ArmbenchRunner

REPO = Path(__file__).parents[2]
HOOKS: dict[str, Any] = runpy.run_path(str(REPO / 'configs/_base_/default_runtime.py'))['default_hooks']
UNUSED = ('visualization', 'num_class_check', 'validation_loss', 'self_test')  # need images


def toy(work_dir: Path) -> Config:
    """The toy run with every default hook that does not need images."""
    config = toy_config(work_dir)
    config.custom_hooks = []
    config.default_hooks = Config({**HOOKS, **dict.fromkeys(UNUSED)})._cfg_dict | config.default_hooks
    config.train_cfg.update(max_iters=2, val_interval=2)
    return config


def types(runner: ArmbenchRunner) -> list[str]:
    return [type(hook).__name__ for hook in runner.hooks]


@pytest.mark.parametrize('value', ['None', 'enabled=False'])
@pytest.mark.parametrize('name', [name for name in HOOKS if name not in UNUSED])
def test_every_hook_can_be_switched_off_alone(name: str, value: str, tmp_path: Path) -> None:
    config = toy(tmp_path)
    kind = config.default_hooks[name]['type']
    option = f'default_hooks.{name}={value}' if value == 'None' else f'default_hooks.{name}.{value}'
    config.merge_from_dict(configs.parse_options([option]))
    runner = run(config)
    assert kind not in types(runner)
    assert runner.iter == 2


def test_hooks_come_in_the_order_that_they_need(tmp_path: Path) -> None:
    order = types(run(toy(tmp_path)))
    assert order[-3:] == ['InterruptionHook', 'RunRecordHook', 'ResumeHook']
    assert order.index('AtomicCheckpointHook') < order.index('InterruptionHook')
    assert order.index('RuntimeInfoHook') < order.index('LossGuardHook') < order.index('LoggerHook')
