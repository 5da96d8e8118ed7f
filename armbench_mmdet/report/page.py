"""The report as files: HTML, Markdown, CSV."""

import csv
import dataclasses
import io
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from armbench_mmdet.evaluation.result import MISSING, SUMMARY_KEYS
from armbench_mmdet.files import write_atomically
from armbench_mmdet.report import plots, tables
from armbench_mmdet.report.answer import Answer, answer_plot, answers, headline, seeds_table
from armbench_mmdet.report.collect import Comparison, Run, collect_runs, comparisons
from armbench_mmdet.report.pictures import SUSPECTED, Picture, gallery
from armbench_mmdet.report.plots import Plot
from armbench_mmdet.report.tables import Table

PROCEDURAL = (
    'Minibench: these are procedurally drawn totes, not ARMBench photos. The numbers show that everything works and '
    'how runs compare; they say nothing about performance on ARMBench.'
)
ELSEWHERE = (
    'On ARMBench’s photos, by others, under protocols of their own. Shown for orientation; none of them may be set '
    'against a number of this report without reading its caveat.'
)
PARTS: dict[str, Sequence[Callable[[Comparison], Plot | Table | None]]] = {
    'precision-recall': [plots.precision_recall_plot],
    'operating': [plots.operating_plot, plots.reliability_plot, tables.operating_table],
    'picks': [tables.pick_table],
    'size': [tables.size_table],
    'density': [tables.density_table],
    'speed': [plots.speed_plot, tables.speed_table],
    'errors': [tables.error_table],
    'anatomy': [tables.cost_table, tables.confusion_table],
    'suspects': [tables.suspect_table],
}
"""The plots and tables of each part of the page that is about one subset and split after the other."""
_FOLDER = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Report:
    """What there is to report.

    Attributes:
        problems: What is missing, broken or unfinished.
        compared: The results by subset and split, as are ``answers``; ``scores`` by IoU type, too.
        parts: The plots and tables of each folded part of the page, those with something in them.
        suspects: Pictures of labels that may be wrong.
    """

    runs: list[Run]
    problems: list[str]
    compared: list[Comparison]
    answers: list[Answer]
    scores: list[Table]
    parts: dict[str, list[Plot | Table]]
    pictures: list[Picture]
    suspects: list[Picture]
    made: str

    @property
    def is_procedural(self) -> bool:
        """Whether any run is on minibench."""
        return any(run.is_procedural for run in self.runs)

    def run_table(self) -> Table:
        """One line a run."""
        rows = []
        for run in self.runs:
            tested = [
                f'{e.subset} {e.split} ({Path(e.result.identity.checkpoint or MISSING).name})' for e in run.evaluations
            ]
            data = f'minibench (procedural): {run.trained_on}' if run.is_procedural else run.trained_on
            steps = MISSING if run.log.last_step is None else str(run.log.last_step)
            about = [run.name, run.status, run.config_path or MISSING, data, steps]
            rows.append([*about, ', '.join(tested) or MISSING])
        header = ['run', 'status', 'config', 'trained on', 'iterations', 'results on']
        return Table('Runs', header, rows, text_columns=len(header))

    def overview(self) -> Table:
        """The main scores of every result."""
        rows = [
            ((entry.label, entry.run.trained_on, comparison.title), entry.result)
            for comparison in self.compared
            for entry in comparison.entries
        ]
        return tables.main_table(rows, ['run', 'trained on', 'tested on'])


def gather(work_dirs: Sequence[str | Path]) -> Report:
    """Read the runs and compute what the report shows.

    Raises:
        InputError: There is nothing to report at all.
    """
    runs, problems = collect_runs(work_dirs)
    compared, unlike = comparisons(runs)
    scores: list[Table | None] = []
    for comparison in compared:
        types = [iou_type for iou_type in tables.TYPE_NAMES if comparison.scored(iou_type)]
        scores += [seeds_table(comparison), *(tables.score_table(comparison, iou_type) for iou_type in types)]
    parts = {name: [make(comparison) for comparison in compared for make in own] for name, own in PARTS.items()}
    parts['training'] = [*map(plots.loss_plot, runs), plots.score_plot(runs)]
    parts['corruptions'] = [tables.corruption_table(runs), *map(plots.corruption_plot, runs)]
    pictures, missing = gallery(runs)
    return Report(
        runs=runs,
        problems=problems + unlike + missing,
        compared=compared,
        answers=answers(compared),
        scores=[table for table in scores if table],
        parts={name: [one for one in own if one] for name, own in parts.items()},
        pictures=[one for one in pictures if one.kind != SUSPECTED],
        suspects=[one for one in pictures if one.kind == SUSPECTED],
        made=datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M UTC'),
    )


def write_report(report: Report, out: Path) -> Path:
    """Write ``report.html``, ``results.md`` and ``results.csv`` into a folder, and return the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    page = out / 'report.html'
    write_atomically(page, html(report))
    write_atomically(out / 'results.md', markdown(report))
    write_atomically(out / 'results.csv', comma_separated(report))
    return page


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
        headline=headline(report.answers),
        answer_plot=answer_plot(report.answers),
        published=tables.published_table(),
        label_fractions=plots.label_fraction_plot(report.compared),
        provenances=[(run, tables.facts(run)) for run in report.runs],
        style=Markup((_FOLDER / 'page.css').read_text()),
        script=Markup((_FOLDER / 'page.js').read_text()),
        plotly=Markup(get_plotlyjs()),
    )


def markdown(report: Report) -> str:
    """The tables of a report as Markdown."""
    parts = ['# Results', f'Made {report.made}.']
    parts += [f'> **{PROCEDURAL}**'] if report.is_procedural else []
    parts += ['## Answer', headline(report.answers)] if headline(report.answers) else []
    parts += [f'- **{answer.title}**: {answer.sentence}' for answer in report.answers]
    parts += ['## Runs', report.run_table().markdown()]
    parts += ['## Missing, broken or unfinished', *(f'- {line}' for line in report.problems)] if report.problems else []
    parts += ['## Scores', *(table.markdown() for table in [report.overview(), *report.scores])]
    parts += ['## Parts of the data']
    parts += [one.markdown() for own in report.parts.values() for one in own if isinstance(one, Table)]
    parts += ['## Published numbers', f'> {ELSEWHERE}', tables.published_table().markdown()]
    return '\n\n'.join(parts) + '\n'


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
