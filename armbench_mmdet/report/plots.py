"""Plots of results and of training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from armbench_mmdet.datasets.categories import CLASSES
from armbench_mmdet.evaluation.error_rates import VERDICTS
from armbench_mmdet.evaluation.matches import precision_at_recall
from armbench_mmdet.evaluation.protocol import IOU_THRESHOLDS, RECALL_THRESHOLDS
from armbench_mmdet.evaluation.strata import DENSITY_NAMES
from armbench_mmdet.report.collect import Comparison, Run, Series
from armbench_mmdet.report.tables import SIZE_NAMES, SIZE_UNITS, VERDICT_NAMES, filled_densities, with_masks

# Okabe & Ito: told apart with any colour vision, and in grey.
PALETTE = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#8a8a00')
MAX_POINTS = 600
GRID = '#e3e6ea'


@dataclasses.dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        title: What it shows; the text for those who cannot see it.
        note: A sentence below it, or nothing.
        data: Plotly's traces.
        layout: Plotly's layout.
    """

    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    note: str = ''


def colour(number: int) -> str:
    """The colour of a run or a component by its place; they repeat."""
    return PALETTE[number % len(PALETTE)]


def layout(x_title: str, y_title: str, height_px: int = 380, **more: Any) -> dict[str, Any]:
    """A light, plain layout; ``more`` goes on top."""
    axis = {'gridcolor': GRID, 'linecolor': '#8a929c', 'ticks': 'outside', 'zeroline': False, 'automargin': True}
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


def side_by_side(plain: dict[str, Any], titles: Sequence[str]) -> dict[str, Any]:
    """The layout with one pair of axes for each title, all with the scale of the first."""
    share, gap = 1 / len(titles), 0.05
    annotations = []
    axes: dict[str, Any] = {}
    for number, title in enumerate(titles, 1):
        suffix = '' if number == 1 else str(number)
        start = (number - 1) * share + (gap if number > 1 else 0)
        stop = number * share - (gap if number < len(titles) else 0)
        axes[f'xaxis{suffix}'] = {**plain['xaxis'], 'domain': [start, stop], 'anchor': f'y{suffix}'}
        axes[f'yaxis{suffix}'] = {**plain['yaxis'], 'anchor': f'x{suffix}'}
        if number > 1:
            axes[f'yaxis{suffix}'] |= {'matches': 'y', 'title': {'text': ''}}
        annotation = {'text': title, 'x': (start + stop) / 2, 'y': 1, 'xref': 'paper', 'yref': 'paper'}
        annotations.append({**annotation, 'showarrow': False, 'yanchor': 'bottom', 'font': {'size': 14}})
    return {**plain, **axes, 'annotations': annotations, 'margin': {**plain['margin'], 't': 36}}


def axes_of(number: int) -> dict[str, str]:
    """Where a trace goes in the pair of axes of that number, from 1."""
    return {} if number == 1 else {'xaxis': f'x{number}', 'yaxis': f'y{number}'}


def line(series: Series, **trace: Any) -> dict[str, Any]:
    """A curve as a trace, thinned."""
    steps, values = thinned(series)
    return {'type': 'scatter', 'mode': 'lines', 'x': steps, 'y': [rounded(value) for value in values], **trace}


def thinned(series: Series, points: int = MAX_POINTS) -> tuple[list[float], list[float | None]]:
    """At most so many points, each the mean over its stretch of the curve; None where all of that is missing."""
    stride = math.ceil(len(series.steps) / points) if series.steps else 1
    if stride == 1:
        return series.steps, series.values
    steps, values = [], []
    for start in range(0, len(series.steps), stride):
        stretch = [value for value in series.values[start : start + stride] if value is not None]
        steps.append(series.steps[start : start + stride][-1])
        values.append(sum(stretch) / len(stretch) if stretch else None)
    return steps, values


def rounded(value: float | None) -> float | None:
    """Five digits, more than a screen shows: every digit is in the page."""
    return None if value is None else float(f'{value:.5g}')


SHOWN_IOUS = ((0.5, '', 'solid'), (0.75, ', IoU 0.75', 'dash'))
CURVES_NOTE = (
    'Solid: IoU 0.5; dashed: IoU 0.75; dotted: mean over 0.5…0.95. The area under a curve is its average precision.'
)
VERDICT_COLOURS = ('#009e73', '#e69f00', '#cc79a7', '#9aa2ad')
Colours = Mapping[str, str]


def run_colours(names: Sequence[str]) -> Colours:
    """One colour for each run, the same in every plot."""
    return {name: colour(number) for number, name in enumerate(names)}


def precision_recall_plot(comparison: Comparison, colours: Colours) -> Plot | None:
    """Precision over recall of masks at IoU 0.5 and 0.75 and in the mean over all thresholds, classes apart."""
    traces = []
    for entry in comparison.entries:
        table = entry.evaluation.tables.get('segm')
        if table is None:
            continue
        for number, name in enumerate(CLASSES, 1):
            curves = precision_at_recall(table.classes[name])
            if np.isnan(curves).any():
                continue
            chosen = [(curves[np.isclose(IOU_THRESHOLDS, iou)][0], what, dash) for iou, what, dash in SHOWN_IOUS]
            for curve, what, dash in [*chosen, (curves.mean(0), ', mean', 'dot')]:
                traces.append(
                    {'type': 'scatter', 'mode': 'lines', 'name': entry.label + what, 'legendgroup': entry.label}
                    | {'x': RECALL_THRESHOLDS.round(2).tolist(), 'y': curve.round(4).tolist()}
                    | {'line': {'color': colours[entry.run.name], 'dash': dash}}
                    | axes_of(number)
                )
    if not traces:
        return None
    for trace in traces:  # a class may be without instances, and its axes then without curves
        first = next(other for other in traces if other['legendgroup'] == trace['legendgroup'])
        trace['showlegend'] = trace is first
    plain = layout('recall', 'precision', height_px=420)
    for axis in (plain['xaxis'], plain['yaxis']):
        axis['range'] = [0, 1.02]
    title = f'Precision and recall of masks: {comparison.title}'
    return Plot(title, traces, side_by_side(plain, CLASSES), CURVES_NOTE)


def size_plot(comparison: Comparison, colours: Colours) -> Plot | None:
    """Object mask mAP by size of the instance, by both sets of bins."""
    traces = []
    for entry in with_masks(comparison):
        strata = entry.evaluation.result.scores['segm'].per_size
        for number, unit in enumerate(SIZE_UNITS, 1):
            values = [strata[unit][size].per_class.get('object') for size in SIZE_NAMES]
            bar = _bar(entry.label, list(SIZE_NAMES.values()), values, colours[entry.run.name])
            traces.append({**bar, 'legendgroup': entry.label, 'showlegend': number == 1, **axes_of(number)})
    plain = _scores_layout('size of the instance', 'object mask mAP')
    title = f'Object mAP by size: {comparison.title}'
    return _plot(title, traces, side_by_side(plain, [f'size {unit}' for unit in SIZE_UNITS.values()]))


def density_plot(comparison: Comparison, colours: Colours) -> Plot | None:
    """Object mask mAP by the number of instances in the image."""
    traces = []
    names = filled_densities(comparison)
    for entry in with_masks(comparison):
        strata = entry.evaluation.result.scores['segm'].per_density
        values = [strata[name].per_class.get('object') for name in names]
        traces.append(_bar(entry.label, names, values, colours[entry.run.name]))
    plain = _scores_layout('instances in the image', 'object mask mAP')
    return _plot(f'Object mAP by density: {comparison.title}', traces, plain)


def speed_plot(comparison: Comparison, colours: Colours) -> Plot | None:
    """Milliseconds per image by the number of instances in it."""
    traces = []
    for entry in comparison.entries:
        speed = entry.evaluation.result.speed
        by_density = speed.per_density if speed else {}
        names = [name for name in DENSITY_NAMES if name in by_density]
        for key, what, dash in (('median_ms', 'median', 'solid'), ('p95_ms', '95th percentile', 'dash')):
            values = [rounded(getattr(by_density[name], key)) for name in names]
            paint = {'color': colours[entry.run.name], 'dash': dash}
            name = entry.label if what == 'median' else f'{entry.label}, {what}'
            trace = {'type': 'scatter', 'mode': 'lines+markers', 'name': name, 'x': names, 'y': values, 'line': paint}
            traces += [{**trace, 'legendgroup': entry.label, 'showlegend': what == 'median'}] if names else []
    plain = layout('instances in the image', 'ms per image')
    plain['xaxis'] |= {'type': 'category', 'categoryorder': 'array', 'categoryarray': list(DENSITY_NAMES)}
    plain['yaxis']['rangemode'] = 'tozero'
    return _plot(f'Speed by density: {comparison.title}', traces, plain, 'Solid: median; dashed: 95th percentile.')


def error_plot(comparison: Comparison) -> Plot | None:
    """What became of the instances of the object class: found, split, merged, missed."""
    found = [
        (entry.label, (entry.evaluation.result.segmentation_errors or {})['object'])
        for entry in reversed(comparison.entries)
        if 'object' in (entry.evaluation.result.segmentation_errors or {})
    ]
    traces = [
        {'type': 'bar', 'orientation': 'h', 'name': VERDICT_NAMES[verdict], 'marker': {'color': paint}}
        | {'y': [label for label, _ in found], 'x': [rounded(getattr(shares, verdict)) for _, shares in found]}
        for verdict, paint in zip(VERDICTS, VERDICT_COLOURS, strict=True)
    ]
    plain = layout('share of the object instances', '', height_px=170 + 40 * len(found), barmode='stack')
    plain['xaxis']['range'] = [0, 1]
    plain['legend'] = {'orientation': 'h', 'y': 1.02, 'yanchor': 'bottom', 'x': 0, 'traceorder': 'normal'}
    return _plot(f'Objects found, split, merged and missed: {comparison.title}', traces if found else [], plain)


def _scores_layout(x_title: str, y_title: str) -> dict[str, Any]:
    plain = layout(x_title, y_title, barmode='group')
    plain['xaxis'] |= {'type': 'category', 'gridcolor': '#ffffff'}
    plain['yaxis'] |= {'rangemode': 'tozero', 'gridcolor': GRID}
    return plain


def _bar(label: str, names: Sequence[str], values: Sequence[float | None], paint: str) -> dict[str, Any]:
    bar = {'type': 'bar', 'name': label, 'x': list(names), 'y': [rounded(value) for value in values]}
    return {**bar, 'marker': {'color': paint}}


def _plot(title: str, traces: list[dict[str, Any]], plain: dict[str, Any], note: str = '') -> Plot | None:
    values = [value for trace in traces for value in trace['x' if trace.get('orientation') == 'h' else 'y']]
    return Plot(title, traces, plain, note) if any(value is not None for value in values) else None


HIDDEN = 'legendonly'
VALIDATION_NOTE = (
    'Solid: training, with its augmentations and batch statistics; dashed: validation, without. '
    'Compare their shapes, not their heights.'
)


def loss_plot(run: Run) -> Plot | None:
    """Every loss component in training, and on the validation data where the run logged it.

    Components of intermediate decoder layers (``d0.loss_mask``) are there and hidden until asked for.

    Returns:
        None for a run without curves.
    """
    traces: list[dict[str, Any]] = []
    for number, name in enumerate(run.log.losses()):
        own: dict[str, Any] = {'legendgroup': name, 'visible': HIDDEN if '.' in name else True}
        paint = {'color': colour(number), 'width': 3 if name == 'loss' else 1.5}
        label = f'{name} (total)' if name == 'loss' else name
        series = run.log.training(name)
        if series.steps:
            traces.append(line(series, name=label, line=paint, **own))
        series = run.log.validated(f'val_loss/{name}')
        if series.steps:
            dashed = {**paint, 'dash': 'dash'}
            own['showlegend'] = not run.log.training(name).steps  # one entry in the legend for both curves
            traces.append(line(series, name=f'{label}, validation', line=dashed, mode='lines+markers', **own))
    if not traces:
        return None
    has_validation = any('validation' in trace['name'] for trace in traces)
    note = VALIDATION_NOTE if has_validation else 'The log has no validation loss.'
    if any(trace['visible'] == HIDDEN for trace in traces):
        note += ' Losses of intermediate layers are hidden; a click in the legend shows them.'
    if len(run.log.train) > MAX_POINTS:
        note += ' Each point is the mean over its stretch.'
    aside = {'orientation': 'v', 'x': 1.01, 'y': 1}  # it scrolls there: thirty components do not fit below
    return Plot(f'Losses of {run.name}', traces, layout('iteration', 'loss', height_px=440, legend=aside), note)


def learning_rate_plot(runs: Sequence[Run]) -> Plot | None:
    """The learning rate of every run."""
    return _one_curve_each(runs, 'Learning rate', 'lr', 'learning rate', type='log', exponentformat='power')


def score_plot(runs: Sequence[Run]) -> Plot | None:
    """The mask mAP on the validation data, both classes' mean and the object class alone."""
    traces = []
    for number, run in enumerate(runs):
        for key, label, dash in (('segm_mAP', 'mean', 'solid'), ('segm_object_mAP', 'object', 'dash')):
            series = run.log.validated(f'coco/{key}')
            if series.steps:
                paint = {'color': colour(number), 'dash': dash}
                grouped = {'legendgroup': run.name, 'showlegend': label == 'mean'}
                name = run.name if label == 'mean' else f'{run.name}, {label}'
                traces.append(line(series, name=name, line=paint, mode='lines+markers', **grouped))
    if not traces:
        return None
    plain = layout('iteration', 'mask mAP')
    plain['yaxis']['rangemode'] = 'tozero'
    note = 'Solid: mean of both classes; dashed: object class alone.'
    return Plot('Mask mAP on the validation data over training', traces, plain, note)


def _one_curve_each(runs: Sequence[Run], title: str, key: str, y_title: str, **y_axis: Any) -> Plot | None:
    traces = [
        line(series, name=run.name, line={'color': colour(number)})
        for number, run in enumerate(runs)
        for series in [run.log.training(key)]
        if series.steps
    ]
    plain = layout('iteration', y_title)
    plain['yaxis'] |= y_axis
    return Plot(title, traces, plain) if traces else None
