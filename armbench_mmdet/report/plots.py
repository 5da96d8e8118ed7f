"""What every plot shares: a figure as plotly reads it, colours by run, curves thinned to what a screen can show."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from armbench_mmdet.report.logs import Series

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
