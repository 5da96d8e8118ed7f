"""The plots: valid for plotly, every component there, and as few points as a screen can show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import plotly.graph_objects
import pytest
from synthetic_runs import log_rows, write_log

from armbench_mmdet.evaluation.result import read_result
from armbench_mmdet.report import plots
from armbench_mmdet.report.collect import Series, collect_runs
from armbench_mmdet.report.page import PARTS, Report
from armbench_mmdet.report.plots import MAX_POINTS, thinned


def test_plotly_takes_every_plot(report: Report) -> None:
    drawn = [plots.loss_plot(run) for run in report.runs]
    drawn += [plots.learning_rate_plot(report.runs), plots.score_plot(report.runs)]
    drawn += [plot(comparison) for comparison in report.compared for plot, _ in PARTS.values()]
    for plot in drawn:
        assert plot is not None
        plotly.graph_objects.Figure(plot.data, plot.layout)  # refuses what plotly does not know
        json.dumps([plot.data, plot.layout], allow_nan=False)


def test_losses_have_every_component_twice_and_inner_layers_hidden(report: Report) -> None:
    plot = plots.loss_plot(report.runs[0])
    assert plot is not None
    names = {trace['name']: trace['visible'] for trace in plot.data}
    for name in ('loss (total)', 'loss_cls', 'loss_bbox', 'loss_mask'):
        assert names[name] is True
        assert names[f'{name}, validation'] is True
    assert names['d0.loss_mask'] == 'legendonly'
    assert 'Compare their shapes' in plot.note


def test_a_log_without_validation_loss_says_so(tmp_path: Path) -> None:
    write_log(tmp_path, log_rows(val_loss=False))
    runs, _ = collect_runs([tmp_path])
    plot = plots.loss_plot(runs[0])
    assert plot is not None
    assert 'no validation loss' in plot.note


def test_precision_recall_curves_have_the_average_precision_as_their_mean(
    report: Report, work_dirs: list[Path]
) -> None:
    comparison = report.compared[0]
    plot = plots.precision_recall_plot(comparison)
    assert plot is not None
    assert len(plot.data) == 2 * 2 * 3
    result = read_result(work_dirs[1] / f'results/{comparison.subset}_test.json').segm.per_class['object']
    for what, key in (('', 'mAP_50'), (', IoU 0.75', 'mAP_75'), (', mean', 'mAP')):
        (curve,) = (t['y'] for t in plot.data if t['name'] == f'second{what}' and t.get('xaxis') == 'x2')
        assert np.mean(curve) == pytest.approx(getattr(result, key), abs=1e-4)


@pytest.mark.parametrize('points', [1, MAX_POINTS, MAX_POINTS + 1, 10 * MAX_POINTS + 3])
def test_thinning_keeps_the_end_and_the_mean(points: int) -> None:
    values: list[float | None] = [float(value) for value in np.random.default_rng(0).normal(2, 1, points)]
    steps, few = thinned(Series(list(range(points)), values))
    assert len(steps) == len(few) <= MAX_POINTS
    assert steps[-1] == points - 1
    assert np.mean(few) == pytest.approx(np.mean(values), abs=0.02)


def test_thinning_skips_gaps() -> None:
    steps, few = thinned(Series([1, 2, 3, 4], [None, 4.0, None, None]), points=2)
    assert (steps, few) == ([2, 4], [4.0, None])
