"""Plots of training and of results."""

import dataclasses
import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from armbench_mmdet.evaluation.matches import precision_at_recall
from armbench_mmdet.evaluation.protocol import IOU_THRESHOLDS, RECALL_THRESHOLDS
from armbench_mmdet.evaluation.result import MEAN
from armbench_mmdet.report.collect import Comparison, Curve, Run
from armbench_mmdet.report.tables import OBJECT
from armbench_mmdet.run_folder import METRIC_PREFIX, VALIDATION_LOSS_PREFIX
from armbench_mmdet.transforms.corruption import CORRUPTIONS, SEVERITIES

# Okabe & Ito: told apart with any colour vision, and in grey.
PALETTE = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#8a8a00')
MAX_POINTS = 600
HIDDEN = 'legendonly'
SHOWN_IOUS = ((0.5, '', 'solid'), (0.75, ', IoU 0.75', 'dash'))


@dataclasses.dataclass(frozen=True)
class Plot:
    """One figure: Plotly's traces and layout, a title that says it to those who cannot see it, a note below."""

    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    note: str = ''


def loss_plot(run: Run) -> Plot | None:
    """Every loss component in training, and on the validation data where the run logged it.

    Components of intermediate decoder layers (``d0.loss_mask``) are there and hidden until asked for.
    """
    traces: list[dict[str, Any]] = []
    for number, name in enumerate(run.log.losses()):
        trained, validated = run.log.curve(name), run.log.curve(VALIDATION_LOSS_PREFIX + name)
        own = {'legendgroup': name, 'visible': HIDDEN if '.' in name else True}
        paint = {'color': colour(number), 'width': 3 if name == 'loss' else 1.5}
        if trained[0]:
            traces.append(line(trained, name=name, line=paint, **own))
        if validated[0]:
            paint |= {'dash': 'dash'}
            points = line(validated, name=f'{name}, validation', line=paint, mode='lines+markers', **own)
            traces.append({**points, 'showlegend': not trained[0]})  # one entry in the legend for both curves
    note = (
        'Solid: training, with its augmentations and batch statistics; dashed: validation, without. Compare their '
        'shapes, not their heights. Losses of intermediate layers are hidden; a click in the legend shows them.'
    )
    aside = {'orientation': 'v', 'x': 1.01, 'y': 1}  # it scrolls there: thirty components do not fit below
    layout = plot_layout('iteration', 'loss', height_px=440, legend=aside)
    return Plot(f'Losses of {run.name}', traces, layout, note) if traces else None


def score_plot(runs: Sequence[Run]) -> Plot | None:
    """The mask mAP on the validation data, both classes' mean and the object class alone."""
    traces = []
    for run in runs:
        for key, what, dash in (('segm_mAP', '', 'solid'), (f'segm_{OBJECT}_mAP', f', {OBJECT}', 'dash')):
            curve = run.log.curve(METRIC_PREFIX + key)
            if curve[0]:
                traces.append(line(curve, mode='lines+markers') | _of_run(run.name, what, dash, run.number))
    layout = plot_layout('iteration', 'mask mAP')
    layout['yaxis']['rangemode'] = 'tozero'
    note = f'Solid: mean of both classes; dashed: {OBJECT} class alone.'
    return Plot('Mask mAP on the validation data over training', traces, layout, note) if traces else None


def precision_recall_plot(comparison: Comparison) -> Plot | None:
    """Precision over recall of object masks, at IoU 0.5 and 0.75 and in the mean over all thresholds."""
    traces: list[dict[str, Any]] = []
    for entry in comparison.entries:
        table = entry.evaluation.tables.get('segm')
        if table is None or OBJECT not in table.classes:
            continue
        curves = precision_at_recall(table.classes[OBJECT])
        chosen = [(curves[np.isclose(IOU_THRESHOLDS, iou)][0], what, dash) for iou, what, dash in SHOWN_IOUS]
        for curve, what, dash in [*chosen, (curves.mean(0), ', mean', 'dot')] if not np.isnan(curves).any() else ():
            points = {'x': RECALL_THRESHOLDS.round(2).tolist(), 'y': curve.round(4).tolist()}
            traces.append(
                {'type': 'scatter', 'mode': 'lines', **points, **_of_run(entry.label, what, dash, entry.run.number)}
            )
    layout = plot_layout('recall', 'precision', height_px=420)
    layout['xaxis']['range'] = layout['yaxis']['range'] = [0, 1.02]
    note = 'Solid: IoU 0.5; dashed: IoU 0.75; dotted: mean over 0.5…0.95. The area under a curve is its AP.'
    return Plot(f'Precision and recall of {OBJECT} masks: {comparison.title}', traces, layout, note) if traces else None


def speed_plot(comparison: Comparison) -> Plot | None:
    """Mask mAP of objects against the time an image takes, where there are runs to compare."""
    traces: list[dict[str, Any]] = []
    for entry, segm in comparison.scored('segm'):
        speed, score = entry.result.speed, segm.by_class.get(OBJECT, segm).mAP
        if speed and speed.median_ms is not None and score is not None:
            marker = {'color': colour(entry.run.number), 'size': 12}
            points = {'x': [rounded(speed.median_ms)], 'y': [rounded(score)], 'marker': marker}
            traces.append({'type': 'scatter', 'mode': 'markers', 'name': entry.label, **points})
    layout = plot_layout('ms per image, median', f'{OBJECT} mask mAP')
    layout['xaxis']['rangemode'] = layout['yaxis']['rangemode'] = 'tozero'
    return Plot(f'Accuracy against time: {comparison.title}', traces, layout) if len(traces) > 1 else None


def operating_plot(comparison: Comparison) -> Plot | None:
    """Precision and recall of objects over the score threshold."""
    traces: list[dict[str, Any]] = []
    for entry in comparison.entries:
        one = (entry.result.operation or {}).get(OBJECT)
        curve = one.curve if one else []
        for what, dash in (('precision', 'solid'), ('recall', 'dash')) if curve else ():
            points = [point.threshold for point in curve], [getattr(point, what) for point in curve]
            paint = {'color': colour(entry.run.number), 'dash': dash}
            traces.append(line(points, name=f'{entry.label}, {what}', line=paint))
    layout = plot_layout('score threshold', 'at IoU 0.5')
    return Plot(f'{OBJECT.capitalize()}s at one threshold: {comparison.title}', traces, layout) if traces else None


def corruption_plot(run: Run) -> Plot | None:
    """Mask mAP of objects by kind and severity of corruption, 0 for none; the subsets side by side."""
    columns = [(f'{one.subset} {one.split}', severity) for one in run.corruptions for severity in (0, *SEVERITIES)]
    cells = [
        [
            scores.get(OBJECT, scores.get(MEAN))
            for one in run.corruptions
            for scores in (one.clean, *one.corrupted[kind][: len(SEVERITIES)])
        ]
        for kind in CORRUPTIONS
    ]
    trace = {'type': 'heatmap', 'x': [*zip(*columns, strict=True)], 'y': CORRUPTIONS, 'z': cells, 'zmin': 0, 'zmax': 1}
    trace |= {'colorscale': 'Viridis', 'texttemplate': '%{z:.2f}', 'xgap': 1, 'ygap': 1}
    layout = plot_layout('severity, 0: as it is', '', height_px=620)
    layout['yaxis']['autorange'] = 'reversed'
    return Plot(f'{OBJECT.capitalize()} mask mAP under corruption: {run.name}', [trace], layout) if columns else None


def label_fraction_plot(compared: Sequence[Comparison]) -> Plot | None:
    """Mask mAP of objects over the number of training images, for runs in one folder that differ in it."""
    found: dict[str, dict[int, list[float]]] = {}
    for comparison in compared:
        for entry, segm in comparison.scored('segm'):
            images = entry.run.training_images
            score = segm.by_class.get(OBJECT, segm).mAP
            if entry.is_comparable and images and score is not None:
                name = f'{entry.run.work_dir.parent.name}, {comparison.title}'
                found.setdefault(name, {}).setdefault(images, []).append(score)
    traces = [
        line(
            ([*sorted(scores)], [fmean(scores[images]) for images in sorted(scores)]),
            mode='lines+markers',
            name=name,
            line={'color': colour(number)},
        )
        for number, (name, scores) in enumerate(found.items())
        if len(scores) > 1
    ]
    layout = plot_layout('training images', f'{OBJECT} mask mAP')
    layout['xaxis'] |= {'type': 'log', 'tickvals': sorted({images for scores in found.values() for images in scores})}
    layout['yaxis']['rangemode'] = 'tozero'
    return Plot('Mask mAP by the number of training images', traces, layout) if traces else None


def plot_layout(x_title: str, y_title: str, height_px: int = 380, **more: Any) -> dict[str, Any]:
    """A light, plain layout; ``more`` goes on top."""
    axis = {'gridcolor': '#e3e6ea', 'linecolor': '#8a929c', 'ticks': 'outside', 'zeroline': False, 'automargin': True}
    return {
        'height': height_px,
        'margin': {'l': 60, 'r': 20, 't': 20, 'b': 50},
        'paper_bgcolor': '#ffffff',
        'plot_bgcolor': '#ffffff',
        'font': {'family': 'system-ui, sans-serif', 'size': 13, 'color': '#1c2430'},
        'legend': {'orientation': 'h', 'y': -0.28, 'yanchor': 'top', 'x': 0},
        'hovermode': 'closest',
        'xaxis': {**axis, 'title': {'text': x_title, 'standoff': 8}},
        'yaxis': {**axis, 'title': {'text': y_title, 'standoff': 12}},
        **more,
    }


def _of_run(label: str, what: str, dash: str, number: int) -> dict[str, Any]:
    """A run's colour and name for one of its curves; in the legend stands the one that needs no further name."""
    paint = {'color': colour(number), 'dash': dash}
    return {'name': label + what, 'legendgroup': label, 'showlegend': not what, 'line': paint}


def line(curve: Curve, **trace: Any) -> dict[str, Any]:
    """A curve as a trace of at most :data:`MAX_POINTS`, each the mean over its stretch of the curve."""
    steps, values = curve
    stride = math.ceil(len(steps) / MAX_POINTS)
    x, y = [], []
    for start in range(0, len(steps), stride):
        known = [value for value in values[start : start + stride] if value is not None]
        x.append(steps[start : start + stride][-1])
        y.append(rounded(sum(known) / len(known)) if known else None)
    return {'type': 'scatter', 'mode': 'lines', 'x': x, 'y': y, **trace}


def colour(number: int) -> str:
    """The colour of a run or a component by its place; they repeat."""
    return PALETTE[number % len(PALETTE)]


def rounded(value: float) -> float:
    """Five digits, more than a screen shows: every digit is in the page."""
    return float(f'{value:.5g}')
