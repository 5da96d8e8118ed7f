"""The report as one HTML file that needs nothing else: styles, scripts, plots and pictures are in it."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from armbench_mmdet.report import result_plots, training_plots
from armbench_mmdet.report.content import ELSEWHERE, PROCEDURAL, Report
from armbench_mmdet.report.part_tables import density_table, error_table, size_table, speed_table
from armbench_mmdet.report.plots import Plot
from armbench_mmdet.report.provenance import provenance
from armbench_mmdet.report.published import published_table
from armbench_mmdet.report.table import Table

_FOLDER = Path(__file__).parent
_KINDS = ('best', 'median', 'worst')

Part = tuple[Plot | None, Table | None]
"""A plot and the table with its numbers; either may be missing."""


def html(report: Report) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template('page.html.j2').render(
        report=report,
        title=' and '.join(run.name for run in report.runs) if len(report.runs) < 3 else f'{len(report.runs)} runs',
        version=metadata.version('armbench-mmdet'),
        procedural=PROCEDURAL,
        elsewhere=ELSEWHERE,
        published=published_table(),
        training=_training(report),
        sections=_sections(report),
        provenances=[provenance(run) for run in report.runs],
        choices=_choices(report),
        style=Markup((_FOLDER / 'page.css').read_text()),
        script=Markup((_FOLDER / 'page.js').read_text()),
        plotly=Markup(get_plotlyjs()),
    )


def _training(report: Report) -> list[Plot]:
    plots = [training_plots.loss_plot(run) for run in report.runs]
    plots += [training_plots.learning_rate_plot(report.runs), training_plots.score_plot(report.runs)]
    return [plot for plot in plots if plot is not None]


def _sections(report: Report) -> list[dict[str, Any]]:
    """The sections on results: name for links, heading, what to say where there is nothing, and the parts."""
    colours = result_plots.run_colours([run.name for run in report.runs])

    def parts(plot: Any, table: Any = None) -> list[Part]:
        both = [(plot(one), table(one) if table else None) for one in report.compared]
        return [(drawn, filled) for drawn, filled in both if drawn or (filled and filled.rows)]

    def coloured(plot: Any) -> Any:
        return lambda comparison: plot(comparison, colours)

    names: list[tuple[str, str, str, list[Part]]] = [
        (
            'precision-recall',
            'Precision and recall',
            'No match table lies beside a result file; evaluate again with tools/test.py.',
            parts(coloured(result_plots.precision_recall_plot)),
        ),
        (
            'size',
            'By object size',
            'No result has scores of masks.',
            parts(coloured(result_plots.size_plot), size_table),
        ),
        (
            'density',
            'By density',
            'No result has scores of masks.',
            parts(coloured(result_plots.density_plot), density_table),
        ),
        ('speed', 'Speed', 'No result file has times.', parts(coloured(result_plots.speed_plot), speed_table)),
        (
            'errors',
            'Over- and under-segmentation',
            'No result file has these shares.',
            parts(result_plots.error_plot, error_table),
        ),
    ]
    return [dict(zip(('id', 'heading', 'empty', 'parts'), one, strict=True)) for one in names]


def _choices(report: Report) -> dict[str, list[str]]:
    """What the pictures can be filtered by."""
    pictures = [shot.picture for shot in report.shots]
    return {
        'run': list(dict.fromkeys(shot.run for shot in report.shots)),
        'subset': list(dict.fromkeys(f'{picture.subset} {picture.split}' for picture in pictures)),
        'class': list(dict.fromkeys(picture.class_name for picture in pictures)),
        'kind': [kind for kind in _KINDS if any(picture.kind == kind for picture in pictures)],
    }
