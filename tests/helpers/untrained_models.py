"""Small models with random weights, which see instances everywhere."""

from __future__ import annotations

from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from armbench_mmdet import configs

REPO = Path(__file__).resolve().parents[2]
MODELS_TRIED = {
    'mask_rcnn': REPO / 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py',
    'mask2former': REPO / 'configs/mask2former/mask2former_r18-w32_q30_minibench.py',
}


def untrained(name: str, root: Path, folder: Path) -> tuple[Config, Path]:
    """The config of a small model, without data-loading processes, and a checkpoint of random weights."""
    config = configs.load_config(MODELS_TRIED[name])
    configs.set_data_root(config, root)
    configs.set_work_dir(config, folder)
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    checkpoint = folder / f'{name}.pth'
    torch.save({'state_dict': model.state_dict()}, checkpoint)
    return config, checkpoint
