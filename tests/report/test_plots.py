"""Curves from mmengine's logs, and plots: every component there, and as few points as a screen can show."""

import copy
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import plotly.graph_objects
import pytest
from synthetic_runs import write_log

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.evaluation.result import read_result
from armbench_mmdet.report import plots
from armbench_mmdet.report.collect import comparisons, read_curves
from armbench_mmdet.report.page import Report
from armbench_mmdet.report.plots import MAX_POINTS

OLD = Path(__file__).parents[1] / 'evaluation/result_version_1.json'


def row(step: int, loss: float, **more: float) -> dict:
    return {'loss': loss, 'step': step, **more}


def score(step: int, value: float | None) -> dict:
    return {'coco/segm_mAP': value, 'step': step}


EARLIER = [row(20, 1), row(40, 1), score(40, 0.1), row(60, 1), row(80, 1)]
EPOCHS = [row(50, 1, epoch=1), row(100, 1, epoch=1), score(1, 0.1), row(150, 1, epoch=2), score(2, 0.2)]
LOGS: dict[str, tuple[list[list[dict]], dict, dict]] = {
    # The logs of the attempts; losses and scores by iteration.
    'resumed from 20': ([EARLIER, [row(40, 9), score(40, 0.9), row(60, 9)]], {20: 1, 40: 9, 60: 9}, {40: 0.9}),
    'started afresh': ([EARLIER, [row(20, 5), score(40, 0.5), row(40, 5)]], {20: 5, 40: 5}, {40: 0.5}),
    'validated by epoch': ([EPOCHS], {50: 1, 100: 1, 150: 1}, {100: 0.1, 150: 0.2}),
    'NaN and no number': ([[row(20, 1), row(40, math.nan), row(60, 3), score(60, None)]], {20: 1, 40: None, 60: 3}, {}),
}


@pytest.mark.parametrize(('attempts', 'losses', 'scores'), LOGS.values(), ids=LOGS)
def test_curves_are_what_counts_of_the_logs(tmp_path, attempts: list[list[dict]], losses: dict, scores: dict) -> None:
    for number, rows in enumerate(attempts):
        write_log(tmp_path, rows, f'20261124_01000{number}')
    curves, problems = read_curves(tmp_path)
    assert problems == []
    assert dict(zip(*curves['loss'], strict=True)) == losses
    assert dict(zip(*curves.get('coco/segm_mAP', ((), ())), strict=True)) == scores


def test_losses_have_every_component_in_training_and_validation(report: Report) -> None:
    drawn = [(one['name'], one['line']['dash'], len(one['x'])) for one in plots.loss_plot(report.runs[0]).data]
    names = ['loss', 'loss_cls', 'loss_mask', 'd0.loss_mask']
    assert drawn == [each for name in names for each in ((name, 'solid', 30), (name, 'dash', 3))]


def test_plotly_takes_every_plot(report: Report) -> None:
    drawn = [one for part in report.parts.values() for one in part if isinstance(one, plots.Plot)]
    # The answer, losses, scores; four of each subset; corruptions of each run.
    assert len(drawn) == 1 + 2 + 1 + 3 * 4 + 2
    for plot in drawn:
        plotly.graph_objects.Figure(plot.data, plot.layout)  # refuses what plotly does not know
        json.dumps([plot.data, plot.layout], allow_nan=False)


def test_precision_recall_curves_have_the_average_precision_as_their_mean(report: Report, work_dirs) -> None:
    plot = plots.precision_recall_plot(report.compared[0])
    assert [(one['name'], one['showlegend']) for one in plot.data[2:4]] == [('first', False), ('second', True)]
    result = read_result(work_dirs[1] / f'results/{SUBSETS[0]}_test.json').segm.per_class['object']
    for curve, key in zip(plot.data[3:], ('mAP_50', 'mAP_75', 'mAP'), strict=True):
        assert np.mean(curve['y']) == pytest.approx(getattr(result, key), abs=1e-4)


def test_reliability_is_the_result_files_and_old_files_have_none(report: Report) -> None:
    comparison = report.compared[0]
    curves = {(one['name'], one['line']['dash']): one for one in plots.reliability_plot(comparison).data}
    assert {*curves} == {(name, dash) for name in ('first', 'second') for dash in ('solid', 'dash')}
    bins = comparison.entries[1].result.operation['object'].reliability
    curve = curves['second', 'solid']
    assert curve['x'] == pytest.approx([each.score for each in bins], rel=1e-4)
    assert curve['y'] == pytest.approx([each.precision for each in bins], rel=1e-4)
    assert curve['text'][0] == f'{bins[0].detections} detections'
    old = dataclasses.replace(comparison.entries[0].evaluation, result=read_result(OLD))  # from before there were bins
    entries = [dataclasses.replace(comparison.entries[0], evaluation=old)]
    assert plots.reliability_plot(dataclasses.replace(comparison, entries=entries)).data == []


def test_corruptions_are_drawn_by_kind_and_severity(report: Report) -> None:
    (heat,) = plots.corruption_plot(report.runs[0]).data
    assert np.shape(heat['z']) == (len(heat['y']), len(heat['x'][0])) == (18, 2 * 6)
    cells = [*zip(*heat['x'], heat['z'][0], strict=True)]
    around = [(f'{SUBSETS[0]} test', 5, pytest.approx(0.2)), (f'{SUBSETS[2]} test', 0, pytest.approx(0.7))]
    assert cells[5:7] == around


def test_scores_are_drawn_over_the_number_of_training_images(report: Report) -> None:
    runs = []
    for run, images in zip((*report.runs, *report.runs), (400, 40, [3, 5] * 20, None), strict=True):
        config = copy.deepcopy(run.config)
        config.train_dataloader.dataset.indices = images
        runs.append(dataclasses.replace(run, config=config))
    compared, _ = comparisons(runs)
    plot = plots.label_fraction_plot(compared)
    folder = report.runs[0].work_dir.parent.name
    assert [trace['name'] for trace in plot.data] == [f'{folder}, {subset}, test' for subset in SUBSETS]
    first, second = (entry.result.segm.per_class['object'].mAP for entry in compared[0].entries[:2])
    assert plot.data[0]['x'] == [40, 400]
    assert plot.data[0]['y'] == pytest.approx([np.mean([first, second]), first], rel=1e-4)
    plotly.graph_objects.Figure(plot.data, plot.layout)


def test_accuracy_stands_against_time(report: Report, work_dirs: list[Path]) -> None:
    for trace, folder in zip(plots.speed_plot(report.compared[0]).data, work_dirs, strict=True):
        result = read_result(folder / f'results/{SUBSETS[0]}_test.json')
        assert trace['x'] == [pytest.approx(result.speed.median_ms)]
        assert trace['y'] == [pytest.approx(result.segm.per_class['object'].mAP, rel=1e-4)]


@pytest.mark.parametrize('points', [1, MAX_POINTS, MAX_POINTS + 1, 10 * MAX_POINTS + 3])
def test_thinning_keeps_the_end(points: int) -> None:
    few = plots.trace(range(points), range(points), 'loss', 0)
    assert few['x'] == few['y']
    assert MAX_POINTS / 2 < len(few['x']) <= MAX_POINTS or len(few['x']) == points
    assert few['x'][-1] == points - 1
