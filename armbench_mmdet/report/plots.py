"""Plots of training and of results."""

import dataclasses
import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from armbench_mmdet.evaluation.matches import precision_at_recall
from armbench_mmdet.evaluation.protocol import IOU_THRESHOLDS, RECALL_THRESHOLDS
from armbench_mmdet.evaluation.result import MEAN, shown
from armbench_mmdet.report.collect import Comparison, Entry, Run
from armbench_mmdet.report.tables import OBJECT
from armbench_mmdet.run_folder import METRIC_PREFIX, VALIDATION_LOSS_PREFIX
from armbench_mmdet.transforms.corruption import CORRUPTIONS, SEVERITIES

# Okabe & Ito: told apart with any colour vision, and in grey.
PALETTE = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#8a8a00')
MAX_POINTS = 600
SHOWN_IOUS = {0.5: 'solid', 0.75: 'dash'}


@dataclasses.dataclass(frozen=True)
class Plot:
    """One figure: Plotly's traces and layout, a title that says it to those who cannot see it, a note below."""

    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    note: str = ''

    def __bool__(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.data)


def loss_plot(run: Run) -> Plot:
    """Every loss component in training, and on the validation data where the run logged it.

    Components of intermediate decoder layers (``d0.loss_mask``) are there and hidden until asked for.
    """
    traces: list[dict[str, Any]] = []
    for number, name in enumerate(run.log.losses()):
        curves = {'solid': run.log.curve(name), 'dash': run.log.curve(VALIDATION_LOSS_PREFIX + name)}
        modes = {'solid': 'lines', 'dash': 'lines+markers'}
        own = [trace(*curve, name, number, dash, modes[dash]) for dash, curve in curves.items() if curve[0]]
        visible = 'legendonly' if '.' in name else True
        traces += [{**one, 'showlegend': one is own[0], 'visible': visible} for one in own]
    note = (
        'Solid: training, with its augmentations and batch statistics; dashed: validation, without. Compare their '
        'shapes, not their heights. Losses of intermediate layers are hidden; a click in the legend shows them.'
    )
    aside = {'orientation': 'v', 'x': 1.01, 'y': 1}  # it scrolls there: thirty components do not fit below
    return Plot(f'Losses of {run.name}', traces, plot_layout('iteration', 'loss', 440, legend=aside), note)


def score_plot(runs: Sequence[Run]) -> Plot:
    """The mask mAP on the validation data, both classes' mean and the object class alone."""
    traces = []
    for run in runs:
        for key, dash in (('segm_mAP', 'solid'), (f'segm_{OBJECT}_mAP', 'dash')):
            steps, values = run.log.curve(METRIC_PREFIX + key)
            if steps:
                traces.append(trace(steps, values, run.name, run.number, dash, mode='lines+markers'))
    layout = plot_layout('iteration', 'mask mAP')
    note = f'Solid: mean of both classes; dashed: {OBJECT} class alone.'
    return Plot('Mask mAP on the validation data over training', traces, layout, note)


def precision_recall_plot(comparison: Comparison) -> Plot:
    """Precision over recall of object masks, at IoU 0.5 and 0.75 and in the mean over all thresholds."""
    traces: list[dict[str, Any]] = []
    for entry in comparison.entries:
        table = entry.evaluation.tables.get('segm')
        if table is None or OBJECT not in table.classes:
            continue
        every = precision_at_recall(table.classes[OBJECT])
        curves = {dash: every[np.isclose(IOU_THRESHOLDS, iou)][0] for iou, dash in SHOWN_IOUS.items()}
        curves['dot'] = every.mean(0)
        if not np.isnan(every).any():
            traces += [_of(entry, RECALL_THRESHOLDS.round(2), curve, dash) for dash, curve in curves.items()]
    layout = plot_layout('recall', 'precision', 420, of_shares=True)
    note = 'Solid: IoU 0.5; dashed: IoU 0.75; dotted: mean over 0.5…0.95. The area under a curve is its AP.'
    return Plot(f'Precision and recall of {OBJECT} masks: {comparison.title}', traces, layout, note)


def speed_plot(comparison: Comparison) -> Plot | None:
    """Mask mAP of objects against the time an image takes, where there are runs to compare."""
    traces: list[dict[str, Any]] = []
    for entry, segm in comparison.scored('segm'):
        speed, score = entry.result.speed, segm.by_class.get(OBJECT, segm).mAP
        if speed and speed.median_ms is not None and score is not None:
            traces.append(_of(entry, [speed.median_ms], [score], mode='markers', marker={'size': 12}))
    layout = plot_layout('ms per image, median', f'{OBJECT} mask mAP')
    layout['xaxis']['rangemode'] = 'tozero'
    return Plot(f'Accuracy against time: {comparison.title}', traces, layout) if len(traces) > 1 else None


def operating_plot(comparison: Comparison) -> Plot:
    """Precision and recall of objects over the score threshold."""
    traces: list[dict[str, Any]] = []
    for entry in comparison.entries:
        one = (entry.result.operation or {}).get(OBJECT)
        curve = one.curve if one else []
        for what, dash in (('precision', 'solid'), ('recall', 'dash')) if curve else ():
            values = [getattr(point, what) for point in curve]
            traces.append(_of(entry, [point.threshold for point in curve], values, dash))
    layout = plot_layout('score threshold', 'at IoU 0.5', of_shares=True)
    note = 'Solid: precision; dashed: recall.'
    return Plot(f'{OBJECT.capitalize()}s at one threshold: {comparison.title}', traces, layout, note)


def reliability_plot(comparison: Comparison) -> Plot:
    """The share of each class's detections that is right, over their mean score, in bins of the score.

    Source: Guo et al., ICML 2017, reliability diagrams and their expected calibration error.
    """
    traces: list[dict[str, Any]] = []
    errors: dict[str, list[str]] = {}
    for entry in comparison.entries:
        for name, one in (entry.result.operation or {}).items():
            if one.reliability:
                scores = [each.score for each in one.reliability]
                shares = [each.precision for each in one.reliability]
                detections = np.array([each.detections for each in one.reliability])
                marks = {'size': (5 + 15 * np.sqrt(detections / detections.sum())).round(1).tolist()}
                own = _of(entry, scores, shares, 'solid' if name == OBJECT else 'dash', 'lines+markers')
                traces.append({**own, 'marker': marks, 'text': [f'{count} detections' for count in detections]})
                errors.setdefault(name, []).append(f'{entry.label} {shown(one.calibration_error)}')
    layout = plot_layout('mean score', 'share that is right at IoU 0.5', 460, of_shares=True)
    diagonal = {'type': 'line', 'x0': 0, 'y0': 0, 'x1': 1, 'y1': 1, 'line': {'color': '#8a929c', 'width': 1}}
    layout['shapes'] = [{**diagonal, 'layer': 'below'}]
    caption = '; '.join(f'of {name}: {", ".join(own)}' for name, own in errors.items())
    note = (
        f'Solid: {OBJECT}; dashed: the other class. A mark is a bin of the score, the larger the more of the '
        'detections are in it. On the diagonal a score is the share that is right; below it, scores promise too much. '
        'ECE: the mean distance from the diagonal.'
    )
    return Plot(f'Reliability of scores: {comparison.title}. ECE {caption}', traces, layout, note)


def corruption_plot(run: Run) -> Plot:
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
    heat = {'type': 'heatmap', 'x': [*zip(*columns, strict=True)], 'y': CORRUPTIONS, 'z': cells, 'zmin': 0, 'zmax': 1}
    heat |= {'colorscale': 'Viridis', 'texttemplate': '%{z:.2f}', 'xgap': 1, 'ygap': 1}
    layout = plot_layout('severity, 0: as it is', '', 620)
    layout['yaxis']['autorange'] = 'reversed'
    return Plot(f'{OBJECT.capitalize()} mask mAP under corruption: {run.name}', [heat] if columns else [], layout)


def label_fraction_plot(compared: Sequence[Comparison]) -> Plot:
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
        trace(sorted(scores), [fmean(scores[images]) for images in sorted(scores)], name, number, mode='lines+markers')
        for number, (name, scores) in enumerate(found.items())
        if len(scores) > 1
    ]
    layout = plot_layout('training images', f'{OBJECT} mask mAP')
    layout['xaxis'] |= {'type': 'log', 'tickvals': sorted({images for scores in found.values() for images in scores})}
    return Plot('Mask mAP by the number of training images', traces, layout)


def plot_layout(
    x_title: str, y_title: str, height_px: int = 380, of_shares: bool = False, **more: Any
) -> dict[str, Any]:
    """A light, plain layout, both axes from 0 to 1 if they are ``of_shares``; ``more`` goes on top."""
    axis = {'gridcolor': '#e3e6ea', 'linecolor': '#8a929c', 'ticks': 'outside', 'zeroline': False, 'automargin': True}
    axis |= {'range': [0, 1.05]} if of_shares else {}
    return {
        'height': height_px,
        'margin': {'l': 60, 'r': 20, 't': 20, 'b': 50},
        'paper_bgcolor': '#ffffff',
        'plot_bgcolor': '#ffffff',
        'font': {'family': 'system-ui, sans-serif', 'size': 13, 'color': '#1c2430'},
        'legend': {'orientation': 'h', 'y': -0.28, 'yanchor': 'top', 'x': 0},
        'hovermode': 'closest',
        'xaxis': {**axis, 'title': {'text': x_title, 'standoff': 8}},
        'yaxis': {**axis, 'title': {'text': y_title, 'standoff': 12}, 'rangemode': 'tozero'},
        **more,
    }


def _of(entry: Entry, x: Any, y: Any, dash: str = 'solid', mode: str = 'lines', **more: Any) -> dict[str, Any]:
    return trace(x, y, entry.label, entry.run.number, dash, mode, **more)


def trace(
    x: Any, y: Any, name: str, number: int, dash: str = 'solid', mode: str = 'lines', **more: Any
) -> dict[str, Any]:
    """A curve or points in the colour of its run or component, whose solid curve stands in the legend.

    Of more than :data:`MAX_POINTS` points some are left out, evenly; five digits, more than a screen shows, remain.
    """
    kept = slice(None, None, -max(math.ceil(len(x) / MAX_POINTS), 1))  # from the end, which is shown
    values = [None if value is None else float(f'{value:.5g}') for value in y[kept][::-1]]
    paint = {'color': PALETTE[number % len(PALETTE)], 'dash': dash}
    about = {'name': name, 'legendgroup': name, 'showlegend': dash == 'solid', 'line': paint}
    return {'type': 'scatter', 'mode': mode, 'x': [*x[kept][::-1]], 'y': values, **about, **more}
