"""A run that takes milliseconds and draws random numbers everywhere: samples, dropout, validation."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import Tensor, nn

from armbench_mmdet.engine import ArmbenchRunner
from armbench_mmdet.launch import set_resume

IMAGES = 8
_runs = itertools.count()


class Died(BaseException):
    """What happens to a run that is killed, as far as its own process can show it."""


@DATASETS.register_module()
class ToyData:
    """Samples that three random generators change."""

    metainfo: ClassVar = {'classes': ('one',)}

    def __init__(self, images: int = IMAGES) -> None:
        self.images = images
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return self.images

    def get_data_info(self, index: int) -> dict[str, int]:
        return {'width': 1 + index % 3, 'height': 2}

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.loaded.append(index)
        noise = [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002
        return {'x': torch.tensor([index, *noise])}


@MODELS.register_module()
class ToyModel(BaseModel):
    """Two layers with batch norm and dropout."""

    def __init__(self, width: int = 5, init_cfg: Any = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.net = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 1))

    def forward(self, x: list[Tensor], mode: str = 'tensor') -> Any:
        out = self.net(torch.stack(x))
        return {'loss': (out - 1).square().mean()} if mode == 'loss' else list(out)


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


@HOOKS.register_module()
class DyingHook(Hook):
    """Ends the run after an iteration, or in the middle of the validation after it."""

    priority = 'LOWEST'

    def __init__(self, iteration: int, in_validation: bool = False) -> None:
        self.iteration = iteration
        self.in_validation = in_validation

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if not self.in_validation and runner.iter + 1 == self.iteration:
            raise Died

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.in_validation and runner.iter == self.iteration:
            raise Died


def toy_config(work_dir: Path, **changes: Any) -> Config:
    """Twelve iterations, or four epochs of three: a checkpoint every second iteration or every epoch."""
    loader = dict(
        batch_size=3,
        num_workers=0,
        dataset=dict(type='ToyData'),
        sampler=dict(type='InfiniteSampler', shuffle=True),
    )
    config = Config(
        dict(
            default_scope='mmdet',
            work_dir=str(work_dir),
            experiment_name=f'toy-{next(_runs)}',
            model=dict(type='ToyModel'),
            train_dataloader=loader,
            val_dataloader={**loader, 'sampler': dict(type='DefaultSampler', shuffle=False)},
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=12, val_interval=3),
            val_cfg=dict(),
            val_evaluator=dict(type='ToyMetric'),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.05)),
            param_scheduler=[dict(type='CosineAnnealingLR', by_epoch=False, T_max=12)],
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
                checkpoint=dict(
                    type='AtomicCheckpointHook',
                    interval=2,
                    by_epoch=False,
                    max_keep_ckpts=2,
                    save_best='toy/score',
                    rule='greater',
                ),
            ),
            custom_hooks=[dict(type='PretrainedReportHook'), dict(type='SeedingHook'), dict(type='ResumeHook')],
            visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
            log_processor=dict(by_epoch=False),
            randomness=dict(seed=3),
        ),
        format_python_code=False,  # a run writes it with every checkpoint
    )
    config.merge_from_dict(changes)
    return config


def by_epoch(config: Config) -> Config:
    """The same run counted in epochs, of batches of images of one orientation."""
    config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=1)
    config.train_dataloader.sampler.type = 'DefaultSampler'
    config.train_dataloader.batch_sampler = dict(type='AspectRatioBatchSampler')
    config.default_hooks.checkpoint.update(interval=1, by_epoch=True)
    return config


def run(config: Config, resume: str | None = None, dies: dict[str, Any] | None = None) -> ArmbenchRunner:
    """Train; where the run is to die, it has done so."""
    config.experiment_name = f'toy-{next(_runs)}'
    if resume is not None:
        set_resume(config, resume)
    if dies is not None:
        config.custom_hooks.append(dict(type='DyingHook', **dies))
    with mock.patch.object(ArmbenchRunner, '_log_env'):  # it starts compilers to ask for their versions
        runner = ArmbenchRunner.from_cfg(config)
    try:
        runner.train()
    except Died:
        assert dies is not None
    return runner


def state_of(runner: ArmbenchRunner) -> dict[str, Any]:
    """All that must be equal in two runs that are the same."""
    history = {
        name: buffer.data[0].tolist() for name, buffer in runner.message_hub.log_scalars.items() if 'time' not in name
    }
    return {
        'weights': {name: value.clone() for name, value in runner.model.state_dict().items()},
        'optimizer': runner.optim_wrapper.state_dict(),
        'schedulers': [scheduler.state_dict() for scheduler in runner.param_schedulers],
        'history': history,
        'best': runner.message_hub.get_info('best_score', None),
    }


def assert_equal(first: Any, second: Any, where: str = '') -> None:
    """Equality bit for bit, in containers and tensors."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f'{where}.{key}')
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), (where, first, second)
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_equal(*pair, f'{where}[{index}]')
    elif isinstance(first, Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, (where, first, second)
