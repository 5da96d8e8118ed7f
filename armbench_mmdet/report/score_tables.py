"""The tables of scores: every model on every subset, what differs for sure, and training set against test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from armbench_mmdet.datasets.categories import CLASSES
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.bootstrap import MEAN, Interval, difference_intervals
from armbench_mmdet.evaluation.protocol import SUMMARY_KEYS
from armbench_mmdet.evaluation.result_file import MISSING, shown
from armbench_mmdet.report.comparisons import Comparison, Entry
from armbench_mmdet.report.table import Cell, Table, cells

TYPE_NAMES = {'segm': 'masks', 'bbox': 'boxes', 'boundary': 'mask boundaries'}
SURE = ' *'


def score_table(comparison: Comparison, iou_type: str) -> Table:
    """Every run's scores under an IoU type, of both classes' mean and of each class.

    The best of what may be compared is marked, as far as three digits tell.
    """
    entries = [entry for entry in comparison.entries if entry.evaluation.result[iou_type]]
    rows = []
    for name in (MEAN, *CLASSES):
        scores = [_of_class(entry.evaluation.result[iou_type], name) for entry in entries]
        best = _best(entries, scores)
        for entry, own in zip(entries, scores, strict=True):
            numbers = [
                Cell(shown(own[key]), entry.is_comparable and shown(own[key]) == best[key]) for key in SUMMARY_KEYS
            ]
            interval = _interval_of(entry, iou_type, name)
            rows.append(
                [*cells(name, entry.label), numbers[0], *cells(interval), *numbers[1:], *cells(own['instances'])]
            )
    notes = ['95 % interval: of the mAP, by drawing the images anew; mAP_s, mAP_m, mAP_l: by COCO’s pixel sizes.']
    if any(not entry.is_comparable for entry in entries):
        notes.append('† on other data than the others; not to be compared.')
    return Table(
        caption=f'{comparison.title}: {TYPE_NAMES[iou_type]}',
        header=['class', 'run', 'mAP', '95 % interval', *SUMMARY_KEYS[1:], 'instances'],
        rows=rows,
        text_columns=2,
        notes=notes,
    )


def _of_class(scores: Mapping[str, Any], name: str) -> dict[str, Any]:
    if name != MEAN:
        one = scores['per_class'][name]
        return {**one, 'instances': str(one['instances'])}
    return {**scores, 'instances': str(sum(one['instances'] for one in scores['per_class'].values()))}


def _best(entries: Sequence[Entry], scores: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """The best shown value of each key among comparable runs; None where there are fewer than two."""
    best: dict[str, str | None] = {}
    for key in SUMMARY_KEYS:
        values = [s[key] for e, s in zip(entries, scores, strict=True) if e.is_comparable and s[key] is not None]
        best[key] = shown(max(values)) if len(values) > 1 else None
    return best


def _interval_of(entry: Entry, iou_type: str, name: str) -> str:
    interval = (entry.evaluation.result[iou_type]['confidence'] or {}).get(name)
    if interval is None or interval['low'] is None:
        return MISSING
    return f'{shown(interval["low"])}…{shown(interval["high"])}'


def difference_table(comparison: Comparison, iou_type: str) -> Table | None:
    """What the run with the highest mAP has over each other one, on the same images, with intervals.

    Returns:
        None where there are not two runs to compare.
    """
    entries = [entry for entry in comparison.comparable if iou_type in entry.evaluation.tables]
    entries.sort(key=lambda entry: -(entry.evaluation.result[iou_type]['mAP'] or 0))
    if len(entries) < 2:
        return None
    rows, notes = [], []
    tables = [entry.evaluation.tables[iou_type] for entry in entries]
    for entry, table in zip(entries[1:], tables[1:], strict=True):
        try:
            intervals = difference_intervals(tables[0], table)
        except InputError as error:
            notes.append(f'{entries[0].label} − {entry.label}: {error}.')
            continue
        rows.append(cells(f'{entries[0].label} − {entry.label}', *map(_difference, intervals.values())))
    return Table(
        caption=f'{comparison.title}: paired differences in mAP, {TYPE_NAMES[iou_type]}',
        header=['runs', MEAN, *CLASSES],
        rows=rows,
        notes=[f'Both runs on the same draws of images, 95 % interval;{SURE} where it does not hold 0.', *notes],
    )


def _difference(interval: Interval) -> str:
    if interval.value is None or interval.low is None or interval.high is None:
        return MISSING
    sure = SURE if interval.low > 0 or interval.high < 0 else ''
    return f'{interval.value:+.3f} ({interval.low:+.3f}…{interval.high:+.3f}){sure}'


def matrix_table(found: Sequence[Comparison], split: str, subsets: Sequence[str]) -> Table:
    """Training subset against test subset: mask mAP of both classes' mean and of the object class alone."""
    by_subset = {comparison.subset: comparison for comparison in found if comparison.split == split}
    runs = list(dict.fromkeys(entry.run.name for comparison in by_subset.values() for entry in comparison.entries))
    trained_on: dict[str, str] = {}
    scores: dict[tuple[str, str], str] = {}
    for subset, comparison in by_subset.items():
        for entry in comparison.entries:
            trained_on[entry.run.name] = entry.run.trained_on or MISSING
            segm = entry.evaluation.result['segm']
            if segm:
                pair = f'{shown(segm["mAP"])} / {shown(segm["per_class"]["object"]["mAP"])}'
                scores[entry.run.name, subset] = pair if entry.is_comparable else f'{pair} †'
    rows = [
        cells(trained_on[run], run, *(scores.get((run, subset), MISSING) for subset in subsets))
        for run in sorted(runs, key=lambda run: trained_on[run])
    ]
    not_trained_on = [subset for subset in subsets if not any(subset in names for names in trained_on.values())]
    notes = ['Mask mAP: mean of both classes / object class alone (the tote flatters the mean).']
    if not_trained_on:
        notes.append(f'No run here is known to be trained on {", ".join(not_trained_on)}.')
    return Table(f'Trained on × tested on ({split})', ['trained on', 'run', *subsets], rows, 2, notes)
