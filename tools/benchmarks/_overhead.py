"""Iterations of a minibench training, timed from step to step: ``python _overhead.py ours|stock ITERATIONS``.

``ours`` is the config as it is; ``stock`` has mmengine's runner and hooks and nothing else. Both train the same model
on the same batches in one process, without validation. Prints the seconds of each iteration as JSON.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LEAF = ROOT / 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'
WARM_UP = 5

STOCK_HOOKS = {
    'timer': {'type': 'IterTimerHook'},
    'logger': {'type': 'LoggerHook', 'interval': 20, 'log_metric_by_epoch': False},
    'param_scheduler': {'type': 'ParamSchedulerHook'},
    'checkpoint': {'type': 'CheckpointHook', 'interval': -1, 'by_epoch': False},
    'sampler_seed': {'type': 'DistSamplerSeedHook'},
}


def benchmark_config(side: str, iterations: int, work_dir: str) -> Any:
    """The config of one side."""
    from armbench_mmdet.launch import config as configs

    config = configs.load_config(LEAF)
    configs.set_data_root(config, ROOT / 'data/minibench')
    configs.set_work_dir(config, work_dir)
    config.train_cfg.max_iters = WARM_UP + iterations
    config.param_scheduler = config.param_scheduler[:1]
    config.default_hooks.checkpoint.interval = -1
    config.train_dataloader.update(num_workers=0, persistent_workers=False)  # so that samples count, too
    for name in ('val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader', 'test_cfg', 'test_evaluator'):
        config[name] = None
    if side == 'stock':
        config.pop('runner_type')
        config.default_hooks = STOCK_HOOKS
        config.custom_hooks = []
        config.visualizer.vis_backends = [{'type': 'LocalVisBackend'}]
    return config


def main(side: str, iterations: int) -> list[float]:
    """Train, and return the seconds of each iteration after the first few."""
    from armbench_mmdet.launch.train import build_runner

    starts: list[float] = []
    with tempfile.TemporaryDirectory() as work_dir:
        runner = build_runner(benchmark_config(side, iterations, work_dir))
        train_step = runner.model.train_step

        def timed(*args: Any, **kwargs: Any) -> Any:
            starts.append(time.perf_counter())
            return train_step(*args, **kwargs)

        runner.model.train_step = timed
        runner.train()
    return [later - earlier for earlier, later in itertools.pairwise(starts[WARM_UP - 1 :])]


if __name__ == '__main__':
    with contextlib.redirect_stdout(io.StringIO()):
        seconds = main(sys.argv[1], int(sys.argv[2]))
    print(json.dumps(seconds))
