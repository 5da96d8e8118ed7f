"""Iterations of a minibench training, timed from step to step: ``python _overhead.py ours|stock ITERATIONS``.

``ours`` is the config as it is; ``stock`` has mmengine's runner and hooks and nothing else. Both load batches in one
process, without validation; then every step takes one fixed batch and the same random numbers, so that the model's
work is equal. Prints the seconds of each iteration and the last loss as JSON.
"""

import contextlib
import copy
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
    from armbench_mmdet import configs

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
        config.visualizer.vis_backends = [{'type': 'LocalVisBackend'}]
    return config


def fixed_batch(config: Any) -> Any:
    """The first images of the training set, with the same draws of their transforms each time."""
    import numpy as np
    from mmdet.registry import DATASETS
    from mmengine.dataset import pseudo_collate

    dataset = DATASETS.build(config.train_dataloader.dataset)
    np.random.seed(0)  # noqa: NPY002 - what mmcv's transforms draw from
    return pseudo_collate([dataset[i] for i in range(config.train_dataloader.batch_size)])


def main(side: str, iterations: int) -> dict[str, Any]:
    """Train, and return the seconds of each iteration after the first few."""
    import torch

    from armbench_mmdet.launch import build_runner

    starts: list[float] = []
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as work_dir:
        config = benchmark_config(side, iterations, work_dir)
        runner = build_runner(config)
        train_step = runner.model.train_step
        batch = fixed_batch(config)

        def timed(data: Any, optim_wrapper: Any) -> Any:
            starts.append(time.perf_counter())
            torch.manual_seed(0)
            outputs = train_step(copy.deepcopy(batch), optim_wrapper)
            losses.append(outputs['loss'].item())
            return outputs

        runner.model.train_step = timed
        runner.train()
    seconds = [later - earlier for earlier, later in itertools.pairwise(starts[WARM_UP - 1 :])]
    return {'seconds': seconds, 'loss': losses[-1]}


if __name__ == '__main__':
    with contextlib.redirect_stdout(io.StringIO()):
        measured = main(sys.argv[1], int(sys.argv[2]))
    print(json.dumps(measured))
