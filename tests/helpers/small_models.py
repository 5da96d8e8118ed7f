"""The small models of minibench: their configs cut down, and random weights, which see instances everywhere."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from armbench_mmdet import configs

REPO = Path(__file__).resolve().parents[2]
LEAVES = {
    'mask_rcnn': REPO / 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py',
    'mask2former': REPO / 'configs/mask2former/mask2former_r18-w32_q30_minibench.py',
}
VARIED = {'rpn_cls': 20, 'rpn_reg': 5, 'fc_cls': 40, 'fc_reg': 40, 'conv_logits': 30}
VARIED |= {'query_feat': 3, 'cls_embed': 3, 'mask_embed.4': 3}
"""Gains of random weights for scores from 0 to 1, boxes and masks of many shapes, in both models."""
_runs = itertools.count()


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def tiny_config(root: Path, work_dir: Path, iterations: int = 2, model: str | Path = 'mask_rcnn') -> Config:
    """A training cut down to a couple of iterations without data-loading processes."""
    config = configs.load_config(LEAVES.get(model, model))
    configs.set_data_root(config, root)
    configs.set_work_dir(config, work_dir)
    config.experiment_name = f'run-{next(_runs)}'  # two of one name in one second would share a visualizer
    config.train_cfg.update(max_iters=iterations, val_interval=iterations)
    config.default_hooks.checkpoint.interval = iterations
    config.param_scheduler = config.param_scheduler[:1]
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    return config


def write_weights(config: Config, path: Path, gains: Mapping[str, float] | None = None, **content: Any) -> Path:
    """A checkpoint of random weights, some of them scaled by name, and whatever else it is to hold."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    weights = MODELS.build(config.model).state_dict()
    for name, weight in weights.items():
        weight *= next((gain for key, gain in (gains or {}).items() if name.endswith(f'{key}.weight')), 1)
    torch.save({'state_dict': weights, **content}, path)
    return path


def untrained(name: str, root: Path, folder: Path) -> tuple[Config, Path]:
    """The config of a small model, and a checkpoint of random weights."""
    config = tiny_config(root, folder, model=name)
    return config, write_weights(config, folder / f'{name}.pth')
