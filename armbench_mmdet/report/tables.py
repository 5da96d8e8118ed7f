"""Tables of scores, strata and differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from armbench_mmdet.datasets.categories import CLASSES
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.bootstrap import Estimate, difference_intervals
from armbench_mmdet.evaluation.error_rates import VERDICTS
from armbench_mmdet.evaluation.result import (
    MEAN,
    MISSING,
    SUMMARY_KEYS,
    Result,
    Scores,
    StratumScores,
    Times,
    shown,
)
from armbench_mmdet.evaluation.strata import DENSITY_NAMES
from armbench_mmdet.report.collect import Comparison, Entry

MAIN_SCORES = ('segm mAP', 'mAP_50', 'mAP_75', 'tote mAP', 'object mAP', 'object mAP_50', 'bbox mAP')


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table's cell; ``is_best`` where it is the best of those it may be compared with."""

    text: str
    is_best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for the page and for Markdown.

    Attributes:
        caption: What it shows.
        header: One name a column.
        rows: As many cells each.
        text_columns: How many columns at the left are text; the others are numbers.
        notes: Sentences below it.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text_columns: int = 1
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """Caption, table and notes as Markdown."""
        rows = [[f'**{cell.text}**' if cell.is_best else cell.text for cell in row] for row in self.rows]
        parts = [f'**{self.caption}**', markdown_table(self.header, rows, self.text_columns), *self.notes]
        return '\n\n'.join(parts)


def cells(*texts: str) -> list[Cell]:
    """Plain cells."""
    return [Cell(text) for text in texts]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Lay out a Markdown table with aligned columns; those at the left are text, the others are numbers."""
    rows = [[cell.replace('|', '\\|') for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    align = [*[str.ljust] * text_columns, *[str.rjust] * (len(header) - text_columns)]

    def line(texts: Sequence[str]) -> str:
        return '| ' + ' | '.join(put(text, width) for put, text, width in zip(align, texts, widths, strict=True)) + ' |'

    rule = [
        '-' * width if put is str.ljust else '-' * (width - 1) + ':' for put, width in zip(align, widths, strict=True)
    ]
    return '\n'.join([line(rows[0]), line(rule), *(line(row) for row in rows[1:])])


def subset_table(results: Mapping[str, Result], trained_on: str) -> str:
    """One row a test set: mask AP over both classes, of tote and object apart, and box AP.

    Args:
        results: By the subset tested on.
        trained_on: The subset trained on.
    """
    rows = [[trained_on, subset, *main_scores(result)] for subset, result in results.items()]
    return markdown_table(['trained on', 'tested on', *MAIN_SCORES], rows, text_columns=2)


def main_scores(result: Result) -> list[str]:
    """The numbers under :data:`MAIN_SCORES`, as they are shown."""
    segm, bbox = result.segm, result.bbox
    per_class = segm.per_class if segm else {}
    tote, thing = per_class.get('tote'), per_class.get('object')
    scores = [segm.mAP, segm.mAP_50, segm.mAP_75] if segm else [None] * 3
    scores += [tote.mAP if tote else None]
    scores += [thing.mAP, thing.mAP_50] if thing else [None] * 2
    return [shown(one) for one in (*scores, bbox.mAP if bbox else None)]


TYPE_NAMES = {'segm': 'masks', 'bbox': 'boxes', 'boundary': 'mask boundaries'}
SURE = ' *'


def score_table(comparison: Comparison, iou_type: str) -> Table:
    """Every run's scores under an IoU type, of both classes' mean and of each class.

    The best of what may be compared is marked, as far as three digits tell.
    """
    entries = [entry for entry in comparison.entries if iou_type in entry.evaluation.result.scores]
    rows = []
    for name in (MEAN, *CLASSES):
        scores = [entry.evaluation.result.scores[iou_type].by_class[name] for entry in entries]
        best = _best(entries, scores)
        for entry, own in zip(entries, scores, strict=True):
            numbers = [
                Cell(shown(value), entry.is_comparable and shown(value) == best[key])
                for key, value in own.numbers().items()
            ]
            interval = _interval_of(entry, iou_type, name)
            rows.append(
                [*cells(name, entry.label), numbers[0], *cells(interval), *numbers[1:], *cells(str(own.instances))]
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


def _best(entries: Sequence[Entry], scores: Sequence[Scores]) -> dict[str, str | None]:
    """The best shown value of each key among comparable runs; None where there are fewer than two."""
    best: dict[str, str | None] = {}
    for key in SUMMARY_KEYS:
        values = [s.numbers()[key] for e, s in zip(entries, scores, strict=True) if e.is_comparable]
        known = [value for value in values if value is not None]
        best[key] = shown(max(known)) if len(known) > 1 else None
    return best


def _interval_of(entry: Entry, iou_type: str, name: str) -> str:
    interval = (entry.evaluation.result.scores[iou_type].confidence or {}).get(name)
    if interval is None or interval.low is None:
        return MISSING
    return f'{shown(interval.low)}…{shown(interval.high)}'


def difference_table(comparison: Comparison, iou_type: str) -> Table | None:
    """What the run with the highest mAP has over each other one, on the same images, with intervals.

    Returns:
        None where there are not two runs to compare.
    """
    entries = [entry for entry in comparison.comparable if iou_type in entry.evaluation.tables]
    entries.sort(key=lambda entry: -(entry.evaluation.result.scores[iou_type].mAP or 0))
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


def _difference(interval: Estimate) -> str:
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
            segm = entry.evaluation.result.segm
            if segm:
                pair = f'{shown(segm.mAP)} / {shown(segm.per_class["object"].mAP)}'
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


SIZE_NAMES = {'s': 'small', 'm': 'medium', 'l': 'large'}
SIZE_UNITS = {'relative': 'relative to the image', 'coco': 'in pixels'}
VERDICT_NAMES = {verdict: verdict.replace('_', '-') for verdict in VERDICTS}
_STRATUM = ['mAP', *(f'{name} mAP' for name in CLASSES), 'mAP_50', 'mAP_75', 'AR_100', 'instances', 'images']


def with_masks(comparison: Comparison) -> list[Entry]:
    """The entries that have scores of masks."""
    return [entry for entry in comparison.entries if entry.evaluation.result.segm]


def size_table(comparison: Comparison) -> Table:
    """Mask scores by size of the instance, in bins of the image area and of pixels."""
    rows = [
        [*cells(f'{SIZE_NAMES[size]} ({SIZE_UNITS[unit]})', entry.label), *_stratum(strata[unit][size])]
        for unit in SIZE_UNITS
        for size in SIZE_NAMES
        for entry in with_masks(comparison)
        for strata in [entry.evaluation.result.scores['segm'].per_size]
    ]
    return Table(f'{comparison.title}: masks by size', ['size', 'run', *_STRATUM], rows, 2)


def density_table(comparison: Comparison) -> Table:
    """Mask scores by the number of instances in the image."""
    filled = filled_densities(comparison)
    rows = [
        [*cells(name, entry.label), *_stratum(entry.evaluation.result.scores['segm'].per_density[name])]
        for name in filled
        for entry in with_masks(comparison)
    ]
    empty = ', '.join(name for name in DENSITY_NAMES if name not in filled)
    return Table(
        caption=f'{comparison.title}: masks by density',
        header=['instances per image', 'run', *_STRATUM],
        rows=rows,
        text_columns=2,
        notes=[f'No image has {empty} instances.'] if empty else [],
    )


def filled_densities(comparison: Comparison) -> list[str]:
    """The density bins with images in them."""
    per_density = [entry.evaluation.result.scores['segm'].per_density for entry in with_masks(comparison)]
    return [name for name in DENSITY_NAMES if any(strata[name].images for strata in per_density)]


def _stratum(scores: StratumScores) -> list[Cell]:
    by_class = [scores.per_class.get(name) for name in CLASSES]
    numbers = [scores.mAP, *by_class, scores.mAP_50, scores.mAP_75, scores.AR_100]
    return cells(*map(shown, numbers), str(scores.instances), str(scores.images))


def speed_table(comparison: Comparison) -> Table:
    """Milliseconds per image, median and 95th percentile, overall and by density, and the peak of memory."""
    rows = []
    for entry in comparison.entries:
        speed = entry.evaluation.result.speed
        if speed is not None:
            times = [_times(speed), *(_times(speed.per_density.get(name)) for name in DENSITY_NAMES)]
            memory = [shown(one, 0) for one in (speed.peak_memory_mb, speed.peak_gpu_memory_mb)]
            rows.append(cells(entry.label, speed.device, str(speed.images), *times, *memory))
    header = ['run', 'device', 'images', 'all', *DENSITY_NAMES, 'peak memory, MB', 'peak GPU memory, MB']
    return Table(
        caption=f'{comparison.title}: ms per image, median / 95th percentile, by instances per image',
        header=header,
        rows=rows,
        text_columns=2,
        notes=[
            'From the loaded batch to finished masks; reading the image is not in it. '
            'Only times on the same, otherwise idle machine compare.',
            *_without(comparison, 'speed', 'no times in its result file'),
        ],
    )


def _times(times: Times | None) -> str:
    return f'{shown(times.median_ms, 0)} / {shown(times.p95_ms, 0)}' if times else f'{MISSING} / {MISSING}'


def error_table(comparison: Comparison) -> Table:
    """The share of instances found, split, merged and missed."""
    rows = []
    for name in CLASSES:
        for entry in comparison.entries:
            errors = (entry.evaluation.result.segmentation_errors or {}).get(name)
            if errors is not None:
                shares = [shown(getattr(errors, verdict)) for verdict in VERDICTS]
                rows.append(cells(name, entry.label, *shares, str(errors.instances)))
    return Table(
        caption=f'{comparison.title}: shares of instances',
        header=['class', 'run', *VERDICT_NAMES.values(), 'instances'],
        rows=rows,
        text_columns=2,
        notes=[
            'Predictions with a score of 0.5 or more. Over-segmented: several predictions on one instance; '
            'under-segmented: one prediction over several instances.',
            *_without(comparison, 'segmentation_errors', 'no such shares in its result file'),
        ],
    )


def _without(comparison: Comparison, key: str, what: str) -> Sequence[str]:
    return [f'{e.label}: {what}.' for e in comparison.entries if getattr(e.evaluation.result, key) is None]
