"""Timing beside the evaluation."""

import types

import numpy as np
import pytest
import torch
from coco_random import random_dataset, truth_of
from metric_runs import META, as_samples
from torch import Tensor, nn

from armbench_mmdet.evaluation.metric import ArmbenchMetric, speed_summary
from armbench_mmdet.hooks import speed
from armbench_mmdet.hooks.speed import SpeedHook


def test_summary_by_density_and_stage():
    stages = [{'load': 5.0, 'forward': 0.0008 * (i + 1), 'post-process': 0.0002 * (i + 1)} for i in range(20)]
    predictions = [{'img_id': i, 'stages_s': own} for i, own in enumerate(stages)] + [{'img_id': 99}]
    density = {i: '1-5' if i < 10 else '31+' for i in range(20)}
    summary = speed_summary(predictions, density, parameters=7)
    assert (summary.images, summary.parameters, summary.gflops) == (20, 7, None)
    assert summary.median_ms == pytest.approx(10.5)
    assert summary.p95_ms == pytest.approx(np.percentile(np.arange(1, 21), 95))
    assert summary.per_density['1-5'].median_ms == pytest.approx(5.5)
    assert summary.stages['load'].median_ms == pytest.approx(5000)
    assert summary.stages['post-process'].p95_ms == pytest.approx(summary.p95_ms / 5)
    assert summary.peak_memory_mb > 10
    assert summary.device
    assert summary.threads == torch.get_num_threads()
    assert speed_summary([{'img_id': 1}], {}) is None


class Head(nn.Linear):
    """Takes a tenth of a second to make instances, on the given clock."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__(3, 2)
        self.clock = clock

    def predict_by_feat(self) -> None:
        self.clock[0] += 0.1


class Backbone(nn.Linear):
    """Has a forward pass that torch compiles."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).relu()


class Detector(nn.Module):
    """Takes three tenths of a second beside its head, but for the first batch, which takes nine seconds."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock, self.seconds, self.bbox_head = clock, iter([9.0, 0.3]), Head(clock)
        self.backbone = Backbone(3, 3)

    def test_step(self, batch: list[dict]) -> None:
        self.bbox_head(self.backbone(torch.ones(len(batch), 3)))
        self.clock[0] += next(self.seconds)
        self.bbox_head.predict_by_feat()

    val_step = test_step


@pytest.mark.parametrize('mode', ['test', 'val'])
def test_the_hook_times_stages_of_batches_after_the_warm_up(mode, monkeypatch):
    truth, detections = random_dataset(1)
    samples = as_samples(truth, detections)
    metric = ArmbenchMetric(ground_truth=truth_of(truth))
    metric.dataset_meta = META
    loop = types.SimpleNamespace(evaluator=types.SimpleNamespace(metrics=[metric]))
    clock = [0.0]
    monkeypatch.setattr(speed.time, 'perf_counter', lambda: clock[0])
    model, compiled = Detector(clock), []
    model.backbone.compile(backend=lambda graph, inputs: compiled.append(graph) or graph)
    runner = types.SimpleNamespace(model=model, **{f'{mode}_loop': loop})
    hook = SpeedHook(warmup=1)
    getattr(hook, f'before_{mode}_epoch')(runner)
    for number, batch in enumerate((samples[:2], samples[2:])):
        clock[0] += 0.06
        getattr(hook, f'before_{mode}_iter')(runner, number)
        getattr(model, f'{mode}_step')(batch)
        metric.process({}, batch)
        getattr(hook, f'after_{mode}_iter')(runner, number, outputs=batch)
    getattr(hook, f'after_{mode}_epoch')(runner)
    metric.evaluate(len(samples))
    result = metric.result.speed
    assert result.images == len(samples[2:]) == 2
    assert result.median_ms == pytest.approx(200)
    medians = {name: one.median_ms for name, one in result.stages.items()}
    assert medians == pytest.approx({'load': 30, 'forward': 150, 'post-process': 50})
    counted = (20, 30 / 1e9) if mode == 'test' else (None, None)
    assert (result.parameters, result.gflops) == counted
    assert compiled, 'compiled in spite of the counting'
    assert 'predict_by_feat' not in vars(model.bbox_head)
