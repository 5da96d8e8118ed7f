"""The report as files: HTML, Markdown, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from armbench_mmdet.evaluation.protocol import IOU_TYPES
from armbench_mmdet.evaluation.result import MEAN, SUMMARY_KEYS
from armbench_mmdet.report import plots
from armbench_mmdet.report.collect import Comparison
from armbench_mmdet.report.content import ELSEWHERE, PROCEDURAL, Report, part_tables
from armbench_mmdet.report.plots import Plot
from armbench_mmdet.report.provenance import provenance
from armbench_mmdet.report.published import published_table
from armbench_mmdet.report.tables import Table, density_table, error_table, size_table, speed_table

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
    drawn = [plots.loss_plot(run) for run in report.runs]
    drawn += [plots.learning_rate_plot(report.runs), plots.score_plot(report.runs)]
    return [plot for plot in drawn if plot is not None]


def _sections(report: Report) -> list[dict[str, Any]]:
    """The sections on results: name for links, heading, what to say where there is nothing, and the parts."""
    colours = plots.run_colours([run.name for run in report.runs])

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
            parts(coloured(plots.precision_recall_plot)),
        ),
        (
            'size',
            'By object size',
            'No result has scores of masks.',
            parts(coloured(plots.size_plot), size_table),
        ),
        (
            'density',
            'By density',
            'No result has scores of masks.',
            parts(coloured(plots.density_plot), density_table),
        ),
        ('speed', 'Speed', 'No result file has times.', parts(coloured(plots.speed_plot), speed_table)),
        (
            'errors',
            'Over- and under-segmentation',
            'No result file has these shares.',
            parts(plots.error_plot, error_table),
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


def write_report(report: Report, out: Path) -> Path:
    """Write ``report.html``, ``results.md`` and ``results.csv``.

    Args:
        report: What they say.
        out: Their folder, made if need be.

    Returns:
        The page.
    """
    out.mkdir(parents=True, exist_ok=True)
    page = out / 'report.html'
    page.write_text(html(report), encoding='utf-8')
    (out / 'results.md').write_text(markdown(report), encoding='utf-8')
    (out / 'results.csv').write_text(comma_separated(report), encoding='utf-8')
    return page


def markdown(report: Report) -> str:
    """The tables of a report as Markdown."""
    parts = ['# Results', f'Made {report.made}.']
    parts += [f'> **{PROCEDURAL}**'] if report.is_procedural else []
    parts += ['## Runs', report.run_table().markdown()]
    parts += ['## Missing, broken or unfinished', *(f'- {line}' for line in report.problems)] if report.problems else []
    parts += ['## Scores', *(table.markdown() for table in [*report.scores, *report.matrices])]
    parts += ['## Parts of the data', *(t.markdown() for c in report.compared for t in part_tables(c))]
    parts += ['## Published numbers', f'> {ELSEWHERE}', published_table().markdown()]
    return '\n\n'.join(parts) + '\n'


def comma_separated(report: Report) -> str:
    """One row for each run, subset, split, IoU type and class; a number that does not exist is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    identity = [
        'run',
        'config',
        'checkpoint',
        'seed',
        'data_fingerprint',
        'procedural',
        'comparable',
        'subset',
        'split',
    ]
    scores = ['iou_type', 'class', *SUMMARY_KEYS, 'mAP_low', 'mAP_high', 'instances', 'images']
    writer.writerow([*identity, *scores])
    writer.writerows(row for comparison in report.compared for row in _rows(comparison))
    return text.getvalue()


def _rows(comparison: Comparison) -> Iterator[list[object]]:
    for entry in comparison.entries:
        run, result = entry.run, entry.evaluation.result
        identity = result.identity
        known = [identity.config, identity.checkpoint, identity.seed, identity.data_fingerprint]
        flags = [int(run.is_procedural), int(entry.is_comparable)]
        about = [run.name, *known, *flags, comparison.subset, comparison.split]
        for iou_type in IOU_TYPES:
            scores = result.scores.get(iou_type)
            for name, one in scores.by_class.items() if scores else ():
                interval = (scores.confidence or {}).get(name) if scores else None
                ends = [interval.low, interval.high] if interval else [None, None]
                instances = None if name == MEAN else one.instances
                numbers = [*one.numbers().values(), *ends, instances]
                yield [*about, iou_type, name, *numbers, result.images.ground_truth]
