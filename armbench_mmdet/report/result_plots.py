"""The plots of results on a subset: precision and recall, sizes, densities, speed, objects split and merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from armbench_mmdet.datasets.categories import CLASSES
from armbench_mmdet.evaluation.error_rates import VERDICTS
from armbench_mmdet.evaluation.protocol import IOU_THRESHOLDS, RECALL_THRESHOLDS
from armbench_mmdet.evaluation.strata import DENSITY_NAMES
from armbench_mmdet.report.comparisons import Comparison
from armbench_mmdet.report.curves import precision_at_recall
from armbench_mmdet.report.part_tables import SIZE_NAMES, SIZE_UNITS, VERDICT_NAMES, filled_densities, with_masks
from armbench_mmdet.report.plots import GRID, Plot, axes_of, colour, layout, rounded, side_by_side

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
        strata = entry.evaluation.result['segm']['per_size']
        for number, unit in enumerate(SIZE_UNITS, 1):
            values = [strata[unit][size]['per_class'].get('object') for size in SIZE_NAMES]
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
        strata = entry.evaluation.result['segm']['per_density']
        values = [strata[name]['per_class'].get('object') for name in names]
        traces.append(_bar(entry.label, names, values, colours[entry.run.name]))
    plain = _scores_layout('instances in the image', 'object mask mAP')
    return _plot(f'Object mAP by density: {comparison.title}', traces, plain)


def speed_plot(comparison: Comparison, colours: Colours) -> Plot | None:
    """Milliseconds per image by the number of instances in it."""
    traces = []
    for entry in comparison.entries:
        by_density = (entry.evaluation.result['speed'] or {}).get('per_density', {})
        names = [name for name in DENSITY_NAMES if name in by_density]
        for key, what, dash in (('median_ms', 'median', 'solid'), ('p95_ms', '95th percentile', 'dash')):
            values = [rounded(by_density[name][key]) for name in names]
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
        (entry.label, entry.evaluation.result['segmentation_errors']['object'])
        for entry in reversed(comparison.entries)
        if (entry.evaluation.result['segmentation_errors'] or {}).get('object')
    ]
    traces = [
        {'type': 'bar', 'orientation': 'h', 'name': VERDICT_NAMES[verdict], 'marker': {'color': paint}}
        | {'y': [label for label, _ in found], 'x': [rounded(shares[verdict]) for _, shares in found]}
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
