"""The plots of a training: its losses, its learning rate, its scores over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from armbench_mmdet.report.plots import MAX_POINTS, Plot, colour, layout, line
from armbench_mmdet.report.runs import Run

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
