from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from guarded_run import Fit, Points, guarded_runner, same, weights


def logged(work_dir: Path) -> list[dict]:
    return [json.loads(line) for line in next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()]


def test_gradient_norm_is_logged_and_gradients_stay_as_they_are(tmp_path: Path) -> None:
    runner = guarded_runner(tmp_path / 'ours', iterations=2)
    runner.train()
    model, data = Fit(), Points()
    sum(model([data[0]['inputs']]).values()).backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert logged(tmp_path / 'ours')[0]['grad_norm'] == pytest.approx(float(norm))
    clipped = guarded_runner(tmp_path / 'clip', iterations=2, optimizer={'clip_grad': {'max_norm': 1e9}})
    clipped.train()
    assert same(weights(runner), weights(clipped))


def test_clipping_stays_as_configured(tmp_path: Path) -> None:
    runner = guarded_runner(tmp_path, iterations=1, optimizer={'clip_grad': {'max_norm': 0.1}})
    runner.train()
    assert runner.optim_wrapper.clip_grad_kwargs == {'max_norm': 0.1}
    assert logged(tmp_path)[0]['grad_norm'] > 0.1
