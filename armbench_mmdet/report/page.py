"""The report as files: HTML, Markdown, CSV."""

import base64
import csv
import io
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import jinja2
from plotly.offline import get_plotlyjs

from armbench_mmdet.evaluation.result import SUMMARY_KEYS
from armbench_mmdet.files import write_atomically
from armbench_mmdet.report import plots, tables
from armbench_mmdet.report.answer import Answer, answer_of, answer_plot, headline, seeds_table
from armbench_mmdet.report.collect import Comparison, Run, collect_runs, comparisons
from armbench_mmdet.report.pictures import Picture, gallery
from armbench_mmdet.report.plots import Plot
from armbench_mmdet.report.tables import Breakdown, Table

PARTS: dict[str, Sequence[Callable[[Comparison], Plot | Table]]] = {
    'results': [seeds_table, *(partial(tables.score_table, iou_type=iou_type) for iou_type in tables.TYPE_NAMES)],
    'precision-recall': [plots.precision_recall_plot],
    'operating': [
        plots.operating_plot,
        plots.reliability_plot,
        Breakdown('at one threshold, IoU 0.5', tables.operating_rows, 3),
    ],
    'picks': [Breakdown('picks of objects', tables.pick_rows, 1)],
    'size': [Breakdown('masks by size', tables.size_rows)],
    'density': [Breakdown('masks by density', tables.density_rows)],
    'speed': [plots.speed_plot, Breakdown('ms per image, median / 95th percentile', tables.speed_rows)],
    'errors': [Breakdown('shares of instances', tables.error_rows)],
    'anatomy': [
        Breakdown('AP at IoU 0.5 to be gained by correcting all errors of a kind', tables.cost_rows),
        Breakdown('confusion', tables.confusion_rows),
    ],
    'suspects': [Breakdown('suspected labels', tables.suspect_rows, 5)],
}
"""The plots and tables of the parts, see ``parts.j2``, that are about one subset and split after the other."""


class Report(NamedTuple):
    """What there is to report: ``parts`` has the plots and tables of each part of the page that are not empty.

    ``problems`` says what is missing, broken or unfinished; ``compared`` and ``answers`` are by subset and split.
    """

    runs: list[Run]
    problems: list[str]
    compared: list[Comparison]
    answers: list[Answer]
    parts: dict[str, list[Plot | Table]]
    pictures: list[Picture]

    @property
    def is_procedural(self) -> bool:
        """Whether any run is on minibench."""
        return any(run.is_procedural for run in self.runs)


def gather(work_dirs: Sequence[str | Path]) -> Report:
    """Read the runs and compute what the report shows; an ``InputError`` if that is nothing at all."""
    runs, problems = collect_runs(work_dirs)
    compared, unlike = comparisons(runs)
    found = list(filter(None, map(answer_of, compared)))
    parts = {name: [make(comparison) for comparison in compared for make in own] for name, own in PARTS.items()}
    parts['answer'] = [answer_plot(found)]
    parts['runs'] = [tables.run_table(runs)]
    parts['results'] = [tables.overview(compared), plots.label_fraction_plot(compared), *parts['results']]
    parts['published'] = [tables.published_table()]
    parts['training'] = [*map(plots.loss_plot, runs), plots.score_plot(runs)]
    parts['corruptions'] = [tables.corruption_table(runs), *map(plots.corruption_plot, runs)]
    for own in parts.values():
        own[:] = [one for one in own if (one.rows if isinstance(one, Table) else one.data)]
    pictures, missing = gallery(runs)
    return Report(runs, problems + unlike + missing, compared, found, parts, pictures)


def write_report(report: Report, out: Path) -> Path:
    """Write ``report.html``, ``results.md`` and ``results.csv`` into a folder, and return the page's path."""
    page = out / 'report.html'
    write_atomically(page, rendered(report, 'page.html.j2'))
    write_atomically(out / 'results.md', rendered(report, 'results.md.j2'))
    write_atomically(out / 'results.csv', comma_separated(report))
    return page


def rendered(report: Report, template: str) -> str:
    """The whole page, ``page.html.j2``, or its tables as Markdown, ``results.md.j2``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(['html.j2']),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['base64'] = lambda content: base64.b64encode(content).decode()
    return environment.get_template(template).render(
        report=report,
        headline=headline(report.answers),
        made=f'{datetime.now(timezone.utc):%Y-%m-%d %H:%M UTC} by armbench-mmdet {metadata.version("armbench-mmdet")}',
        facts=tables.facts,
        plotly=get_plotlyjs,
    )


def comma_separated(report: Report) -> str:
    """One row for each run, subset, split, IoU type and class; a number that does not exist is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    about = ['run', 'config', 'checkpoint', 'seed', 'data_fingerprint', 'procedural', 'comparable', 'subset', 'split']
    writer.writerow([*about, 'iou_type', 'class', *SUMMARY_KEYS, 'mAP_low', 'mAP_high', 'instances', 'images'])
    for entry in (entry for comparison in report.compared for entry in comparison.entries):
        known, evaluation, images = entry.result.identity, entry.evaluation, entry.result.images.ground_truth
        row = [entry.run.name, known.config, known.checkpoint, known.seed, known.data_fingerprint]
        row += [int(entry.run.is_procedural), int(entry.is_comparable), evaluation.subset, evaluation.split]
        for iou_type, scores in entry.result.scores.items():
            for name, one in scores.by_class.items():
                interval = (scores.confidence or {}).get(name)
                sides = [interval.low, interval.high] if interval else [None, None]
                writer.writerow([*row, iou_type, name, *one.numbers().values(), *sides, one.instances, images])
    return text.getvalue()
