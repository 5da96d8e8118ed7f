"""Plots of training and of results; ``page.js`` has their common looks, and ``parts.j2`` says how to read them."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from armbench_mmdet.evaluation.matches import precision_at_recall
from armbench_mmdet.evaluation.protocol import RECALL_THRESHOLDS
from armbench_mmdet.evaluation.result import MEAN
from armbench_mmdet.report.collect import Comparison, Entry, Run
from armbench_mmdet.report.tables import OBJECT, main_scores
from armbench_mmdet.run_folder import METRIC_PREFIX, VALIDATION_LOSS_PREFIX
from armbench_mmdet.transforms.corruption import CORRUPTIONS, SEVERITIES

# Okabe & Ito: told apart with any colour vision, and in grey.
PALETTE = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#8a8a00')
MAX_POINTS = 600
Trace = dict[str, Any]


class Plot(NamedTuple):
    """One figure: Plotly's traces and layout, and a title that says it to those who cannot see it."""

    title: str
    data: list[Trace]
    layout: dict[str, Any]


def loss_plot(run: Run) -> Plot:
    """Every loss component in training, and on the validation data where the run logged it.

    Components of intermediate decoder layers (``d0.loss_mask``) are there and hidden until asked for.
    """
    names = {key.removeprefix(VALIDATION_LOSS_PREFIX) for key in run.curves if 'loss' in key}
    traces: list[Trace] = []
    for number, name in enumerate(sorted(names, key=lambda name: (name != 'loss', '.' in name, name))):
        visible = 'legendonly' if '.' in name else True
        if name in run.curves:
            traces.append(trace(*run.curves[name], name, number, visible=visible))
        if curve := run.curves.get(VALIDATION_LOSS_PREFIX + name):
            traces.append(trace(*curve, name, number, 'dash', 'lines+markers', visible=visible))
    aside = {'orientation': 'v', 'x': 1.01, 'y': 1}  # it scrolls there: thirty components do not fit below
    return Plot(f'Losses of {run.name}', traces, plot_layout('iteration', 'loss', 440, legend=aside))


def score_plot(runs: Sequence[Run]) -> Plot:
    """The mask mAP on the validation data, both classes' mean and the object class alone."""
    traces = [
        trace(*run.curves[METRIC_PREFIX + key], run.name, run.number, dash, 'lines+markers')
        for run in runs
        for key, dash in (('segm_mAP', 'solid'), (f'segm_{OBJECT}_mAP', 'dash'))
        if METRIC_PREFIX + key in run.curves
    ]
    return Plot('Mask mAP on the validation data over training', traces, plot_layout('iteration', 'mask mAP'))


def precision_recall_plot(comparison: Comparison) -> Plot:
    """Precision over recall of object masks, at IoU 0.5 and 0.75 and in the mean over all thresholds."""
    traces: list[Trace] = []
    for entry in comparison.entries:
        table = entry.evaluation.tables.get('segm')
        if table and OBJECT in table.classes and table.classes[OBJECT].instances.any():
            every = precision_at_recall(table.classes[OBJECT])
            curves = {'solid': every[0], 'dash': every[5], 'dot': every.mean(0)}  # of IoU 0.50, 0.55 … 0.95
            traces += [_of(entry, RECALL_THRESHOLDS.round(2), curve, dash) for dash, curve in curves.items()]
    layout = plot_layout('recall', 'precision', 420, of_shares=True)
    return Plot(f'Precision and recall of {OBJECT} masks: {comparison.title}', traces, layout)


def speed_plot(comparison: Comparison) -> Plot:
    """Mask mAP of objects against the time an image takes, where there are runs to compare."""
    traces: list[Trace] = []
    for entry in comparison.entries:
        speed, score = entry.result.speed, main_scores(entry.result)[f'{OBJECT} mAP']
        if speed and speed.median_ms is not None and score is not None:
            point = _of(entry, [speed.median_ms], [score], mode='markers')
            traces.append({**point, 'marker': {'size': 12, 'color': point['line']['color']}})
    layout = plot_layout('ms per image, median', f'{OBJECT} mask mAP')
    layout['xaxis']['rangemode'] = 'tozero'
    return Plot(f'Accuracy against time: {comparison.title}', traces if len(traces) > 1 else [], layout)


def operating_plot(comparison: Comparison) -> Plot:
    """Precision and recall of objects over the score threshold."""
    traces: list[Trace] = []
    for entry in comparison.entries:
        one = (entry.result.operation or {}).get(OBJECT)
        if one and one.curve:
            thresholds = [point.threshold for point in one.curve]
            traces.append(_of(entry, thresholds, [point.precision for point in one.curve]))
            traces.append(_of(entry, thresholds, [point.recall for point in one.curve], 'dash'))
    layout = plot_layout('score threshold', 'at IoU 0.5', of_shares=True)
    return Plot(f'{OBJECT.capitalize()}s at one threshold: {comparison.title}', traces, layout)


def reliability_plot(comparison: Comparison) -> Plot:
    """The share of each class's detections that is right, over their mean score, in bins of the score.

    Source: Guo et al., ICML 2017, reliability diagrams.
    """
    traces: list[Trace] = []
    for entry in comparison.entries:
        for name, one in (entry.result.operation or {}).items():
            if bins := one.reliability:
                detections = np.array([each.detections for each in bins])
                scores, shares = [each.score for each in bins], [each.precision for each in bins]
                own = _of(entry, scores, shares, 'solid' if name == OBJECT else 'dash', 'lines+markers')
                marker = {'size': (5 + 15 * np.sqrt(detections / detections.sum())).round(1).tolist()}
                traces.append({**own, 'marker': marker, 'text': [f'{count} detections' for count in detections]})
    layout = plot_layout('mean score', 'share that is right at IoU 0.5', 460, of_shares=True)
    diagonal = {'type': 'line', 'x0': 0, 'y0': 0, 'x1': 1, 'y1': 1, 'line': {'color': '#8a929c', 'width': 1}}
    layout['shapes'] = [{**diagonal, 'layer': 'below'}]
    return Plot(f'Reliability of scores: {comparison.title}', traces, layout)


def corruption_plot(run: Run) -> Plot:
    """Mask mAP of objects by kind and severity of corruption, 0 for none; the subsets side by side."""
    columns = [(f'{one.subset} {one.split}', severity) for one in run.corruptions for severity in (0, *SEVERITIES)]
    cells = []
    for kind in CORRUPTIONS:
        found = (scores for one in run.corruptions for scores in (one.clean, *one.corrupted[kind][: len(SEVERITIES)]))
        cells.append([scores.get(OBJECT, scores.get(MEAN)) for scores in found])
    heat = {'type': 'heatmap', 'x': [*zip(*columns, strict=True)], 'y': CORRUPTIONS, 'z': cells, 'zmin': 0, 'zmax': 1}
    heat |= {'colorscale': 'Viridis', 'texttemplate': '%{z:.2f}', 'xgap': 1, 'ygap': 1}
    layout = plot_layout('severity, 0: as it is', '', 620)
    layout['yaxis']['autorange'] = 'reversed'
    return Plot(f'{OBJECT.capitalize()} mask mAP under corruption: {run.name}', [heat] if columns else [], layout)


def label_fraction_plot(compared: Sequence[Comparison]) -> Plot:
    """Mask mAP of objects over the number of training images, for runs in one folder that differ in it."""
    found: dict[str, dict[int, list[float]]] = {}
    for comparison in compared:
        for entry in comparison.entries:
            images, score = entry.run.training_images, main_scores(entry.result)[f'{OBJECT} mAP']
            if entry.is_comparable and images and score is not None:
                name = f'{entry.run.work_dir.parent.name}, {comparison.title}'
                found.setdefault(name, {}).setdefault(images, []).append(score)
    traces = [
        trace(sorted(scores), [fmean(scores[images]) for images in sorted(scores)], name, number, mode='lines+markers')
        for number, (name, scores) in enumerate(found.items())
        if len(scores) > 1
    ]
    layout = plot_layout('training images', f'{OBJECT} mask mAP')
    layout['xaxis'] |= {'type': 'log', 'tickvals': sorted({images for scores in found.values() for images in scores})}
    return Plot('Mask mAP by the number of training images', traces, layout)


def plot_layout(x: str, y: str, height_px: int = 380, of_shares: bool = False, **more: Any) -> dict[str, Any]:
    """The layout of a plot as far as it is its own: the axes' titles, both from 0 to 1 if they are ``of_shares``."""
    shares = {'range': [0, 1.05]} if of_shares else {}
    axes = {f'{name}axis': {'title': {'text': title}, **shares} for name, title in (('x', x), ('y', y))}
    return {'height': height_px, **axes, **more}


def _of(entry: Entry, x: Any, y: Any, dash: str = 'solid', mode: str = 'lines', **more: Any) -> Trace:
    return trace(x, y, entry.label, entry.run.number, dash, mode, **more)


def trace(x: Any, y: Any, name: str, number: int, dash: str = 'solid', mode: str = 'lines', **more: Any) -> Trace:
    """A curve or points in the colour of its run or component, whose solid curve stands in the legend.

    Of more than :data:`MAX_POINTS` points some are left out, evenly; five digits, more than a screen shows, remain.
    """
    kept = slice(None, None, -max(math.ceil(len(x) / MAX_POINTS), 1))  # from the end, which is shown
    values = [None if value is None else float(f'{value:.5g}') for value in y[kept][::-1]]
    paint = {'color': PALETTE[number % len(PALETTE)], 'dash': dash}
    about = {'name': name, 'legendgroup': name, 'showlegend': dash == 'solid', 'line': paint}
    return {'type': 'scatter', 'mode': mode, 'x': [*x[kept][::-1]], 'y': values, **about, **more}
