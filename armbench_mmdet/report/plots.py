"""Plots of training and of results."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from armbench_mmdet.datasets.release import CLASSES
from armbench_mmdet.evaluation.matches import precision_at_recall
from armbench_mmdet.evaluation.protocol import IOU_THRESHOLDS, RECALL_THRESHOLDS
from armbench_mmdet.evaluation.result import StratumScores
from armbench_mmdet.evaluation.strata import DENSITY_NAMES, VERDICTS
from armbench_mmdet.report.collect import Comparison, Entry, Run, Series
from armbench_mmdet.report.tables import OBJECT, SIZE_NAMES, SIZE_UNITS, VERDICT_NAMES, errors_of, filled_densities
from armbench_mmdet.run_folder import METRIC_PREFIX, VALIDATION_LOSS_PREFIX

# Okabe & Ito: told apart with any colour vision, and in grey.
PALETTE = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#8a8a00')
VERDICT_COLOURS = ('#009e73', '#e69f00', '#cc79a7', '#9aa2ad')
GRID = '#e3e6ea'
MAX_POINTS = 600
HIDDEN = 'legendonly'
SIZE_TITLES = (f'size {SIZE_UNITS["relative"]}', f'size {SIZE_UNITS["coco"]}')
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
    note = 'The log has no validation loss.'
    for number, name in enumerate(run.log.losses()):
        own: dict[str, Any] = {'legendgroup': name, 'visible': HIDDEN if '.' in name else True}
        paint = {'color': colour(number), 'width': 3 if name == 'loss' else 1.5}
        label = f'{name} (total)' if name == 'loss' else name
        trained, validated = run.log.curve(name), run.log.curve(VALIDATION_LOSS_PREFIX + name)
        if trained.steps:
            traces.append(_line(trained, name=label, line=paint, **own))
        if validated.steps:
            own['showlegend'] = not trained.steps  # one entry in the legend for both curves
            paint = {**paint, 'dash': 'dash'}
            traces.append(_line(validated, name=f'{label}, validation', line=paint, mode='lines+markers', **own))
            note = (
                'Solid: training, with its augmentations and batch statistics; dashed: validation, without. '
                'Compare their shapes, not their heights.'
            )
    if any(trace['visible'] == HIDDEN for trace in traces):
        note += ' Losses of intermediate layers are hidden; a click in the legend shows them.'
    if len(run.log.train) > MAX_POINTS:
        note += ' Each point is the mean over its stretch.'
    aside = {'orientation': 'v', 'x': 1.01, 'y': 1}  # it scrolls there: thirty components do not fit below
    layout = plot_layout('iteration', 'loss', height_px=440, legend=aside)
    return Plot(f'Losses of {run.name}', traces, layout, note) if traces else None


def learning_rate_plot(runs: Sequence[Run]) -> Plot | None:
    """The learning rate of every run."""
    curves = [(run, run.log.curve('lr')) for run in runs]
    traces = [_line(one, name=run.name, line={'color': colour(run.number)}) for run, one in curves if one.steps]
    layout = plot_layout('iteration', 'learning rate')
    layout['yaxis'] |= {'type': 'log', 'exponentformat': 'power'}
    return Plot('Learning rate', traces, layout) if traces else None


def score_plot(runs: Sequence[Run]) -> Plot | None:
    """The mask mAP on the validation data, both classes' mean and the object class alone."""
    traces = []
    for run in runs:
        for key, what, dash in (('segm_mAP', '', 'solid'), (f'segm_{OBJECT}_mAP', f', {OBJECT}', 'dash')):
            series = run.log.curve(METRIC_PREFIX + key)
            if series.steps:
                points = _line(series, mode='lines+markers')
                traces.append(points | _of_run(run.name, what, dash, run.number))
    layout = plot_layout('iteration', 'mask mAP')
    layout['yaxis']['rangemode'] = 'tozero'
    note = f'Solid: mean of both classes; dashed: {OBJECT} class alone.'
    return Plot('Mask mAP on the validation data over training', traces, layout, note) if traces else None


def precision_recall_plot(comparison: Comparison) -> Plot | None:
    """Precision over recall of masks at IoU 0.5 and 0.75 and in the mean over all thresholds, classes apart."""
    traces: list[dict[str, Any]] = []
    for entry in comparison.entries:
        table = entry.evaluation.tables.get('segm')
        is_named = False  # a class may be without instances, and its axes then without curves
        for number, name in enumerate(CLASSES, 1):
            if table is None or name not in table.classes:
                continue
            curves = precision_at_recall(table.classes[name])
            if np.isnan(curves).any():
                continue
            chosen = [(curves[np.isclose(IOU_THRESHOLDS, iou)][0], what, dash) for iou, what, dash in SHOWN_IOUS]
            for curve, what, dash in [*chosen, (curves.mean(0), ', mean', 'dot')]:
                points = {'x': RECALL_THRESHOLDS.round(2).tolist(), 'y': curve.round(4).tolist()}
                named = _of_run(entry.label, what, dash, entry.run.number) | {'showlegend': not is_named}
                traces.append({'type': 'scatter', 'mode': 'lines', **points, **named, **_axes(number)})
                is_named = True
    layout = plot_layout('recall', 'precision', height_px=420)
    for axis in (layout['xaxis'], layout['yaxis']):
        axis['range'] = [0, 1.02]
    note = (
        'Solid: IoU 0.5; dashed: IoU 0.75; dotted: mean over 0.5…0.95. The area under a curve is its average precision.'
    )
    return _plot(f'Precision and recall of masks: {comparison.title}', traces, _side_by_side(layout, CLASSES), note)


def size_plot(comparison: Comparison) -> Plot | None:
    """Object mask mAP by size of the instance, by both sets of bins."""
    bars = [
        (entry, list(SIZE_NAMES.values()), [segm.per_size[unit][size] for size in SIZE_NAMES], axes)
        for entry, segm in comparison.scored('segm')
        for axes, unit in enumerate(SIZE_UNITS, 1)
    ]
    layout = _side_by_side(_bar_layout('size of the instance'), SIZE_TITLES)
    return _plot(f'Object mAP by size: {comparison.title}', [_bar(*bar) for bar in bars], layout)


def density_plot(comparison: Comparison) -> Plot | None:
    """Object mask mAP by the number of instances in the image."""
    names = filled_densities(comparison)
    scored = comparison.scored('segm')
    traces = [_bar(entry, names, [segm.per_density[name] for name in names]) for entry, segm in scored]
    return _plot(f'Object mAP by density: {comparison.title}', traces, _bar_layout('instances in the image'))


def speed_plot(comparison: Comparison) -> Plot | None:
    """Milliseconds per image by the number of instances in it."""
    traces: list[dict[str, Any]] = []
    for entry in comparison.entries:
        binned = entry.result.speed.per_density if entry.result.speed else {}
        names = [name for name in DENSITY_NAMES if name in binned]
        for key, what, dash in (('median_ms', '', 'solid'), ('p95_ms', ', 95th percentile', 'dash')):
            points = {'x': names, 'y': [_rounded(getattr(binned[name], key)) for name in names]}
            named = _of_run(entry.label, what, dash, entry.run.number)
            traces.append({'type': 'scatter', 'mode': 'lines+markers', **points, **named})
    layout = plot_layout('instances in the image', 'ms per image')
    layout['xaxis'] |= {'type': 'category', 'categoryorder': 'array', 'categoryarray': list(DENSITY_NAMES)}
    layout['yaxis']['rangemode'] = 'tozero'
    note = 'Solid: median; dashed: 95th percentile.'
    return _plot(f'Speed by density: {comparison.title}', [trace for trace in traces if trace['x']], layout, note)


def error_plot(comparison: Comparison) -> Plot | None:
    """What became of the instances of the object class: found, split, merged, missed."""
    pairs = [(entry.label, errors_of(entry, OBJECT)) for entry in reversed(comparison.entries)]
    found = [(label, errors) for label, errors in pairs if errors is not None]
    traces = [
        {'type': 'bar', 'orientation': 'h', 'name': VERDICT_NAMES[verdict], 'marker': {'color': paint}}
        | {'y': [label for label, _ in found], 'x': [_rounded(getattr(errors, verdict)) for _, errors in found]}
        for verdict, paint in zip(VERDICTS, VERDICT_COLOURS, strict=True)
    ]
    layout = plot_layout(f'share of the {OBJECT} instances', '', height_px=170 + 40 * len(found), barmode='stack')
    layout['xaxis']['range'] = [0, 1]
    layout['legend'] = {'orientation': 'h', 'y': 1.02, 'yanchor': 'bottom', 'x': 0, 'traceorder': 'normal'}
    return _plot(f'Objects found, split, merged and missed: {comparison.title}', traces, layout)


def operating_plot(comparison: Comparison) -> Plot | None:
    """Precision and recall of objects over the score threshold."""
    traces: list[dict[str, Any]] = []
    for entry in comparison.entries:
        one = (entry.result.operation or {}).get(OBJECT)
        for what, dash in (('precision', 'solid'), ('recall', 'dash')) if one else ():
            paint = {'color': colour(entry.run.number), 'dash': dash}
            trace = {'type': 'scatter', 'mode': 'lines', 'name': f'{entry.label}, {what}', 'line': paint}
            points = one.curve if one else []
            heights = [_rounded(getattr(point, what)) for point in points]
            traces.append({**trace, 'x': [_rounded(point.threshold) for point in points], 'y': heights})
    layout = plot_layout('score threshold', 'at IoU 0.5')
    return _plot(f'{OBJECT.capitalize()}s at one threshold: {comparison.title}', traces, layout)


def _plot(title: str, traces: list[dict[str, Any]], layout: dict[str, Any], note: str = '') -> Plot | None:
    """A plot, or None if no trace has a value."""
    values = [value for trace in traces for value in trace['x' if trace.get('orientation') == 'h' else 'y']]
    return Plot(title, traces, layout, note) if any(value is not None for value in values) else None


def plot_layout(x_title: str, y_title: str, height_px: int = 380, **more: Any) -> dict[str, Any]:
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


def _bar_layout(x_title: str) -> dict[str, Any]:
    layout = plot_layout(x_title, f'{OBJECT} mask mAP', barmode='group')
    layout['xaxis'] |= {'type': 'category', 'gridcolor': '#ffffff'}
    layout['yaxis']['rangemode'] = 'tozero'
    return layout


def _side_by_side(plain: dict[str, Any], titles: tuple[str, str]) -> dict[str, Any]:
    """The layout with a pair of axes for each title, both of one scale."""
    titled = {'x': 0.5, 'y': 1, 'showarrow': False, 'yanchor': 'bottom', 'font': {'size': 14}}
    left, right = ({**titled, 'text': title} for title in titles)
    return {
        **plain,
        'grid': {'rows': 1, 'columns': 2, 'pattern': 'independent', 'xgap': 0.1},
        'xaxis2': {**plain['xaxis'], 'anchor': 'y2'},
        'yaxis2': {**plain['yaxis'], 'anchor': 'x2', 'matches': 'y', 'title': {'text': ''}},
        'annotations': [
            {**left, 'xref': 'x domain', 'yref': 'y domain'},
            {**right, 'xref': 'x2 domain', 'yref': 'y2 domain'},
        ],
        'margin': {**plain['margin'], 't': 36},
    }


def _of_run(label: str, what: str, dash: str, number: int) -> dict[str, Any]:
    """A run's colour and name for one of its curves; in the legend stands the one that needs no further name."""
    paint = {'color': colour(number), 'dash': dash}
    return {'name': label + what, 'legendgroup': label, 'showlegend': not what, 'line': paint}


def _axes(number: int) -> dict[str, str]:
    """Where a trace goes in the pair of axes of that number, from 1."""
    return {} if number == 1 else {'xaxis': f'x{number}', 'yaxis': f'y{number}'}


def _bar(entry: Entry, names: list[str], strata: Sequence[StratumScores], axes: int = 1) -> dict[str, Any]:
    heights = [_rounded(one.per_class.get(OBJECT)) for one in strata]
    own = {'name': entry.label, 'legendgroup': entry.label, 'marker': {'color': colour(entry.run.number)}}
    return {'type': 'bar', 'x': names, 'y': heights, **own, 'showlegend': axes == 1, **_axes(axes)}


def _line(series: Series, **trace: Any) -> dict[str, Any]:
    """A curve as a trace, thinned."""
    steps, values = thinned(series)
    return {'type': 'scatter', 'mode': 'lines', 'x': steps, 'y': [_rounded(value) for value in values], **trace}


def thinned(series: Series, points: int = MAX_POINTS) -> tuple[list[float], list[float | None]]:
    """At most so many points, each the mean over its stretch of the curve; None where all of that is missing."""
    stride = math.ceil(len(series.steps) / points) if series.steps else 1
    steps, values = [], []
    for start in range(0, len(series.steps), stride):
        stretch = [value for value in series.values[start : start + stride] if value is not None]
        steps.append(series.steps[start : start + stride][-1])
        values.append(sum(stretch) / len(stretch) if stretch else None)
    return steps, values


def colour(number: int) -> str:
    """The colour of a run or a component by its place; they repeat."""
    return PALETTE[number % len(PALETTE)]


def _rounded(value: float | None) -> float | None:
    """Five digits, more than a screen shows: every digit is in the page."""
    return None if value is None else float(f'{value:.5g}')
