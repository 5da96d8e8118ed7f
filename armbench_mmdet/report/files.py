"""The files of a report: the page, its tables as Markdown, its scores as comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from armbench_mmdet.evaluation.bootstrap import MEAN
from armbench_mmdet.evaluation.protocol import IOU_TYPES, SUMMARY_KEYS
from armbench_mmdet.report.comparisons import Comparison
from armbench_mmdet.report.content import ELSEWHERE, PROCEDURAL, Report, part_tables
from armbench_mmdet.report.page import html
from armbench_mmdet.report.published import published_table


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
        known = [result['identity'][key] for key in ('config', 'checkpoint', 'seed', 'data_fingerprint')]
        flags = [int(run.is_procedural), int(entry.is_comparable)]
        about = [run.name, *known, *flags, comparison.subset, comparison.split]
        for iou_type in IOU_TYPES:
            scores = result[iou_type]
            for name, one in {MEAN: scores, **scores['per_class']}.items() if scores else ():
                interval = (scores['confidence'] or {}).get(name) or {}
                ends = [interval.get('low'), interval.get('high')]
                numbers = [*(one[key] for key in SUMMARY_KEYS), *ends, one.get('instances')]
                yield [*about, iou_type, name, *numbers, result['images']['ground_truth']]
