"""Timing beside the evaluation."""

import types

import numpy as np
import pytest
from coco_random import random_dataset
from metric_runs import META, as_samples

from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.evaluation.strata import speed_summary
from armbench_mmdet.hooks import speed
from armbench_mmdet.hooks.speed import SpeedHook


def test_summary_by_density():
    predictions = [{'img_id': i, 'seconds': 0.001 * (i + 1)} for i in range(20)] + [{'img_id': 99}]
    density = {i: '1-5' if i < 10 else '31+' for i in range(20)}
    summary = speed_summary(predictions, density)
    assert summary.images == 20
    assert summary.median_ms == pytest.approx(10.5)
    assert summary.p95_ms == pytest.approx(np.percentile(np.arange(1, 21), 95))
    assert summary.per_density['1-5'].median_ms == pytest.approx(5.5)
    assert summary.peak_memory_mb > 10
    assert speed_summary([{'img_id': 1}], {}) is None


@pytest.mark.parametrize('mode', ['test', 'val'])
def test_the_hook_times_batches_after_the_warm_up(mode, monkeypatch):
    truth, detections = random_dataset(1)
    samples = as_samples(truth, detections)
    metric = ArmbenchMetric(ground_truth=truth)
    metric.dataset_meta = META
    loop = types.SimpleNamespace(evaluator=types.SimpleNamespace(metrics=[metric]))
    runner = types.SimpleNamespace(**{f'{mode}_loop': loop})
    clock = iter([0.0, 9.0, 10.0, 10.4])
    monkeypatch.setattr(speed.time, 'perf_counter', lambda: next(clock))
    hook = SpeedHook(warmup=1)
    hook.before_test_epoch(runner)
    for number, batch in enumerate((samples[:2], samples[2:])):
        getattr(hook, f'before_{mode}_iter')(runner, number)
        metric.process({}, batch)
        getattr(hook, f'after_{mode}_iter')(runner, number, outputs=batch)
    metric.evaluate(len(samples))
    result = metric.result.speed
    assert result.images == 2
    assert result.median_ms == pytest.approx(200)
