"""Runs that take milliseconds: one draws random numbers everywhere, another can be followed by hand."""

import copy
import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch
from mmdet.registry import DATASETS, METRICS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils.data import Dataset

from armbench_mmdet.engine import ArmbenchRunner
from armbench_mmdet.launch import set_resume

EPOCHS = {  # changes that count a run in epochs, of batches of images of one orientation
    'train_cfg': dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=1, _delete_=True),
    'train_dataloader.sampler.type': 'DefaultSampler',
    'train_dataloader.batch_sampler': dict(type='AspectRatioBatchSampler'),
    'default_hooks.checkpoint': dict(interval=1, by_epoch=True),
}
_runs = itertools.count()


class Died(BaseException):
    """What happens to a run that is killed, as far as its own process can show it."""


@DATASETS.register_module()
class Points(Dataset):
    """Points on a plane, of images in name only, noisy or ``changed`` by index; ``on_load`` is told what is read."""

    metainfo: ClassVar[dict[str, Any]] = {'classes': ('one',)}

    def __init__(self, count: int = 8, changed: Any = (), on_load: Any = None, noisy: bool = False) -> None:
        self.points = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
        for index, point in dict(changed).items():
            self.points[index] = torch.tensor(point)
        self.loaded: list[int] = []
        self.on_load = on_load or self.loaded.append
        self.noisy = noisy

    def __len__(self) -> int:
        return len(self.points)

    def get_data_info(self, index: int) -> dict[str, int]:
        return {'width': 1 + index % 3, 'height': 2}

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.on_load(index)
        noise = [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002
        sample = DetDataSample(metainfo={'img_path': f'images/{index}.jpg', 'img_shape': (20, 30)})
        sample.gt_instances = InstanceData(labels=torch.zeros(index))
        return {'inputs': self.points[index] + self.noisy * torch.tensor(noise), 'data_samples': sample}


@MODELS.register_module()
class ToyModel(BaseModel):
    """Two layers with batch norm and dropout."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 1))

    def forward(self, inputs: list[Tensor], data_samples: Any = None, mode: str = 'tensor') -> Any:
        out = self.net(torch.stack(inputs))
        return {'loss': (out - 1).square().mean()} if mode == 'loss' else list(out)


class Fit(BaseModel):
    """A linear fit of points with two losses, both means over the images."""

    def __init__(self, on_forward: Callable = lambda: None) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        nn.init.constant_(self.linear.weight, 0.5)
        nn.init.constant_(self.linear.bias, 0.0)
        self.on_forward = on_forward

    def forward(self, inputs: Sequence[Tensor], data_samples: Any = None, mode: str = 'tensor') -> dict[str, Tensor]:
        self.on_forward()
        points = torch.stack(list(inputs))
        residual = self.linear(points[:, :2])[:, 0] - points[:, 2]
        return {'loss_fit': residual.square().mean(), 'loss_size': 0.1 * self.linear.weight.square().sum()}


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """Depends on the weights and on what validation draws."""

    default_prefix = 'toy'

    def logged_names(self) -> list[str]:
        return ['toy/score']

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [float(sample) + random.random() for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return {'score': float(np.mean(results))}


class AtIteration(Hook):
    """Calls a function once an iteration is trained, counted from 1, or in the middle of the validation after it."""

    def __init__(self, iteration: int, action: Callable, in_validation: bool = False, priority: str = 'HIGH') -> None:
        self.iteration, self.action, self.in_validation, self.priority = iteration, action, in_validation, priority

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if not self.in_validation and runner.iter + 1 == self.iteration:
            self.action()

    def after_val_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if self.in_validation and runner.iter == self.iteration:
            self.action()


def toy_config(work_dir: Path, **changes: Any) -> Config:
    """Twelve iterations, or four epochs of three: a checkpoint every second iteration or every epoch."""
    loader = dict(batch_size=3, num_workers=0, dataset=dict(type='Points', noisy=True))
    checkpoint = dict(interval=2, by_epoch=False, max_keep_ckpts=2, save_best='toy/score', rule='greater')
    config = Config(
        dict(
            default_scope='mmdet',
            work_dir=str(work_dir),
            model=dict(type='ToyModel'),
            train_dataloader={**loader, 'sampler': dict(type='InfiniteSampler', shuffle=True)},
            val_dataloader={**loader, 'sampler': dict(type='DefaultSampler', shuffle=False)},
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=12, val_interval=3),
            val_cfg=dict(),
            val_evaluator=dict(type='ToyMetric'),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.05)),
            param_scheduler=[dict(type='CosineAnnealingLR', by_epoch=False, T_max=12)],
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
                checkpoint=dict(type='AtomicCheckpointHook', **checkpoint),
            ),
            custom_hooks=[dict(type='PretrainedReportHook'), dict(type='SeedingHook'), dict(type='ResumeHook')],
            visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
            log_processor=dict(by_epoch=False),
            randomness=dict(seed=3),
        ),
        cfg_text='written by hand',
        filename=str(work_dir / 'toy.py'),
        format_python_code=False,  # a run writes it with every checkpoint
    )
    config.merge_from_dict(copy.deepcopy(changes))
    return config


def built(config: Config) -> ArmbenchRunner:
    """The run, which has not begun."""
    config.experiment_name = f'toy-{next(_runs)}'  # two of one name in one second would share a visualizer
    with mock.patch.object(ArmbenchRunner, '_log_env'):  # it starts compilers to ask for their versions
        return ArmbenchRunner.from_cfg(config)


def run(config: Config, resume: str | None = None, dies: dict[str, Any] | None = None) -> ArmbenchRunner:
    """Train; where the run is to die, it has done so."""
    if resume is not None:
        set_resume(config, resume)
    if dies is not None:
        config.custom_hooks.append(AtIteration(action=mock.Mock(side_effect=Died), priority='LOWEST', **dies))
    runner = built(config)
    try:
        runner.train()
    except Died:
        assert dies is not None
    return runner


def guarded_runner(
    work_dir: Path, iterations=6, data=None, model=None, batch_size=1, num_workers=0, hooks=(), loss_guard=(), **changes
) -> ArmbenchRunner:
    """A fit of points in their order under the hooks that guard a run, without validation; it has not begun."""
    config = toy_config(work_dir, train_cfg=dict(max_iters=iterations), log_processor=dict(window_size=1), **changes)
    config.model = model or Fit()
    config.train_dataloader.update(dataset=data or Points(), batch_size=batch_size, num_workers=num_workers)
    config.train_dataloader.sampler.shuffle = False
    config.val_dataloader = config.val_cfg = config.val_evaluator = config.param_scheduler = None
    config.optim_wrapper.optimizer = dict(type='SGD', lr=0.1, momentum=0.9)
    config.default_hooks.checkpoint = dict(type='AtomicCheckpointHook', by_epoch=False, interval=1000)
    guards = [dict(type=name) for name in ('InterruptionHook', 'RunRecordHook', 'ResumeHook')]
    config.custom_hooks = [dict(type='LossGuardHook', **dict(loss_guard)), *guards, *hooks]
    return built(config)


def weights(runner: ArmbenchRunner) -> dict[str, Tensor]:
    """A copy of the model's weights."""
    model = getattr(runner.model, 'module', runner.model)
    return {name: value.clone() for name, value in model.state_dict().items()}


def state_of(runner: ArmbenchRunner) -> dict[str, Any]:
    """All that must be equal in two runs that are the same."""
    return {
        'weights': weights(runner),
        'optimizer': runner.optim_wrapper.state_dict(),
        'schedulers': [scheduler.state_dict() for scheduler in runner.param_schedulers],
        'rows': logged(Path(runner.work_dir)),
        'best': runner.message_hub.get_info('best_score', None),
    }


def logged(work_dir: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Rows of the log by kind and step; later ones win, and times and memory are left out."""
    rows = {}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for row in map(json.loads, file.read_text().splitlines()):
            kind = 'val' if any('/' in key for key in row) else 'train'
            rows[kind, row['step']] = {k: v for k, v in row.items() if 'time' not in k and 'memory' not in k}
    return rows


def assert_equal(first: Any, second: Any, where: str = '') -> None:
    """Equality bit for bit, in containers and tensors."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f'{where}.{key}')
    elif isinstance(first, (list, tuple)):
        assert_equal(dict(enumerate(first)), dict(enumerate(second)), where)
    else:
        assert torch.equal(first, second) if isinstance(first, Tensor) else first == second, (where, first, second)
