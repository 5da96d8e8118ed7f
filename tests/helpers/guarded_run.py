"""Runs of a model with three numbers in it, on images that exist in name only: everything else is the real thing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor, nn

from armbench_mmdet.engine import ArmbenchRunner

_runs = itertools.count()
_CPU_WRAPPER = {'model_wrapper_cfg': {'device_ids': None}}
GUARDS = ('LossGuardHook', 'InterruptionHook', 'RunRecordHook', 'ResumeHook')


class Points(torch.utils.data.Dataset):
    """Points on a plane; ``changed`` replaces some by index."""

    def __init__(self, count: int = 8, changed: dict[int, Any] | None = None, on_load: Callable | None = None) -> None:
        self.points = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
        self.changed = changed or {}
        self.on_load = on_load

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.on_load is not None:
            self.on_load(index)
        point = torch.as_tensor(self.changed.get(index, self.points[index]), dtype=torch.float32)
        sample = DetDataSample(metainfo={'img_path': f'images/{index}.jpg', 'img_shape': (20, 30)})
        sample.gt_instances = InstanceData(labels=torch.zeros(index))
        return {'inputs': point, 'data_samples': sample}


class Fit(BaseModel):
    """A linear fit with two losses, both means over the images."""

    def __init__(self, on_forward: Callable | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        nn.init.constant_(self.linear.weight, 0.5)
        nn.init.constant_(self.linear.bias, 0.0)
        self.on_forward = on_forward

    def forward(self, inputs: Sequence[Tensor], data_samples: Any = None, mode: str = 'tensor') -> dict[str, Tensor]:
        if self.on_forward is not None:
            self.on_forward()
        points = torch.stack(list(inputs))
        residual = self.linear(points[:, :2])[:, 0] - points[:, 2]
        return {'loss_fit': residual.square().mean(), 'loss_size': 0.1 * self.linear.weight.square().sum()}


class AtIteration(Hook):
    """Calls a function once an iteration is trained, counted from 1."""

    priority = 'HIGH'

    def __init__(self, iteration: int, action: Callable[[], Any]) -> None:
        self.iteration, self.action = iteration, action

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.iteration:
            self.action()


def guarded_runner(
    work_dir: Path,
    iterations: int = 6,
    data: Points | None = None,
    model: Fit | None = None,
    batch_size: int = 1,
    hooks: Sequence[Hook | dict] = (),
    loss_guard: dict[str, Any] | None = None,
    optimizer: dict[str, Any] | None = None,
    num_workers: int = 0,
    **config: Any,
) -> Runner:
    """A run whose images come in their order."""
    guards = [{'type': name, **((loss_guard or {}) if name == 'LossGuardHook' else {})} for name in GUARDS]
    settings = {
        'work_dir': str(work_dir),
        'default_scope': 'mmdet',
        'default_hooks': {
            'logger': {'type': 'LoggerHook', 'interval': 1, 'log_metric_by_epoch': False},
            'checkpoint': {'type': 'AtomicCheckpointHook', 'by_epoch': False, 'interval': 1000},
        },
        'custom_hooks': [*guards, *hooks],
        'train_dataloader': {
            'batch_size': batch_size,
            'num_workers': num_workers,
            'sampler': {'type': 'InfiniteSampler', 'shuffle': False},
            'collate_fn': {'type': 'pseudo_collate'},
            'dataset': data or Points(),
        },
        'train_cfg': {'by_epoch': False, 'max_iters': iterations},
        'optim_wrapper': {
            'type': 'OptimWrapper',
            'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9},
            **(optimizer or {}),
        },
        'log_processor': {'by_epoch': False, 'window_size': 1},
        'randomness': {'seed': 0},
        'experiment_name': f'guarded-{next(_runs)}',
        **config,
    }
    file = work_dir / 'guarded.py'
    work_dir.mkdir(parents=True, exist_ok=True)
    file.touch()
    with mock.patch.object(ArmbenchRunner, '_log_env'):  # it starts compilers to ask for their versions
        return ArmbenchRunner(model=model or Fit(), cfg=Config(_CPU_WRAPPER, filename=str(file)), **settings)


def weights(runner: Runner) -> dict[str, Tensor]:
    """A copy of the model's weights."""
    model = getattr(runner.model, 'module', runner.model)
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether weights are equal bit for bit."""
    return all(torch.equal(first[name], second[name]) for name in first)
