"""Timing beside the evaluation."""

import types
from typing import Any

import pytest
import torch
from coco_random import random_dataset, truth_of
from metric_runs import META, as_samples
from torch import Tensor, nn

from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.hooks import speed


class Backbone(nn.Linear):
    """Has a forward pass that torch compiles."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).relu()


class Detector(nn.Module):
    """On the given clock, 0.3 s beside its head, but for the first batch, which takes nine; its head takes 0.1 s."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock, self.seconds = clock, iter([9.0, 0.3])
        self.backbone, self.bbox_head = Backbone(3, 3), nn.Linear(3, 2)
        self.bbox_head.predict_by_feat = lambda: self.pass_by(0.1)

    def pass_by(self, seconds: float) -> None:
        self.clock[0] += seconds

    def test_step(self, batch: list[dict]) -> None:
        self.bbox_head(self.backbone(torch.ones(len(batch), 3)))
        self.pass_by(next(self.seconds))
        self.bbox_head.predict_by_feat()

    val_step = test_step


@pytest.mark.parametrize('mode', ['test', 'val'])
def test_the_hook_times_stages_of_batches_after_the_warm_up(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, detections = random_dataset(1)
    samples = as_samples(truth, detections)
    metric = ArmbenchMetric(ground_truth=truth_of(truth))
    metric.dataset_meta = META
    loop = types.SimpleNamespace(evaluator=types.SimpleNamespace(metrics=[metric]))
    clock = [0.0]
    monkeypatch.setattr(speed.time, 'perf_counter', lambda: clock[0])
    model, compiled = Detector(clock), []
    model.backbone.compile(backend=lambda graph, inputs: compiled.append(graph) or graph)
    runner: Any = types.SimpleNamespace(model=model, **{f'{mode}_loop': loop})
    hook = speed.SpeedHook(warmup=1)
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
    assert [result.median_ms, result.p95_ms] == pytest.approx([200, 200])
    assert [one.median_ms for one in result.per_density.values()] == pytest.approx([200] * len(result.per_density))
    assert result.peak_memory_mb > 10
    assert (bool(result.device), result.threads) == (True, torch.get_num_threads())
    medians = {name: one.median_ms for name, one in result.stages.items()}
    assert medians == pytest.approx({'load': 30, 'forward': 150, 'post-process': 50})
    assert (result.parameters, result.gflops) == ((20, 30 / 1e9) if mode == 'test' else (None, None))
    assert compiled, 'compiled in spite of the counting'
    assert f'{mode}_step' not in vars(model)
