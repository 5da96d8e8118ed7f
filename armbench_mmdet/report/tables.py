"""Tables of scores, strata, differences and published numbers, and the provenance of a run."""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml
from tabulate import tabulate

from armbench_mmdet.configs import leaves
from armbench_mmdet.datasets.release import CLASSES, SUBSETS
from armbench_mmdet.evaluation.anatomy import VERDICTS
from armbench_mmdet.evaluation.matches import Estimate
from armbench_mmdet.evaluation.protocol import DENSITY_NAMES
from armbench_mmdet.evaluation.result import (
    MEAN,
    MISSING,
    SUMMARY_KEYS,
    ErrorCosts,
    Interval,
    Result,
    StratumScores,
    shown,
)
from armbench_mmdet.report.collect import Comparison, Run, subset_order
from armbench_mmdet.transforms.corruption import CORRUPTIONS, SEVERITIES

TOTE, OBJECT = CLASSES
MAIN_SCORES = {
    'segm mAP': ('segm', MEAN, 'mAP'),
    'mAP_50': ('segm', MEAN, 'mAP_50'),
    'mAP_75': ('segm', MEAN, 'mAP_75'),
    f'{TOTE} mAP': ('segm', TOTE, 'mAP'),
    f'{OBJECT} mAP': ('segm', OBJECT, 'mAP'),
    f'{OBJECT} mAP_50': ('segm', OBJECT, 'mAP_50'),
    'bbox mAP': ('bbox', MEAN, 'mAP'),
}
TYPE_NAMES = {'segm': 'masks', 'boundary': 'mask boundaries', 'bbox': 'boxes'}
SIZE_NAMES = {'s': 'small', 'm': 'medium', 'l': 'large'}
SIZE_UNITS = {'relative': 'relative to the image', 'coco': 'in pixels'}
STAGE_NAMES = ('load', 'forward', 'post-process')
_STRATUM = ['mAP', *(f'{name} mAP' for name in CLASSES), 'mAP_50', 'mAP_75', 'AR_100', 'instances', 'images']


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for the page and for Markdown; ``text_columns`` at the left are text, the others are numbers.

    ``best`` has the rows and columns of the cells that are the best of those they may be compared with.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    notes: Sequence[str] = ()
    best: Collection[tuple[int, int]] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.rows)

    def markdown(self) -> str:
        """Caption, table and notes as Markdown."""
        rows = [
            [f'**{cell}**' if (i, j) in self.best else cell.replace('|', '\\|') for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]
        align = ['left'] * self.text_columns + ['right'] * (len(self.header) - self.text_columns)
        # Not 'github': that one aligns what a terminal shows, and not what Markdown is rendered to.
        table = tabulate(rows, self.header, tablefmt='pipe', disable_numparse=True, colalign=align)
        return '\n\n'.join([f'**{self.caption}**', table, *self.notes])


def main_table(results: Iterable[tuple[Sequence[str], Result]], header: Sequence[str]) -> Table:
    """The main scores of results, each after the words by which it is known."""
    rows = []
    for words, result in results:
        known = {iou_type: scores.by_class for iou_type, scores in result.scores.items()}
        numbers = [getattr(known.get(kind, {}).get(name), key, None) for kind, name, key in MAIN_SCORES.values()]
        rows.append([*words, *map(shown, numbers)])
    return Table('Results', [*header, *MAIN_SCORES], rows, len(header))


def score_table(comparison: Comparison, iou_type: str) -> Table:
    """Every run's scores under an IoU type, of both classes' mean and of each class.

    The best of what may be compared is marked, as far as three digits tell.
    """
    scored = comparison.scored(iou_type)
    first, *others = SUMMARY_KEYS
    header = ['class', 'run', first, '95 % interval', *others, 'instances']
    rows: list[list[str]] = []
    best: set[tuple[int, int]] = set()
    for name in (MEAN, *CLASSES):
        comparable = []
        for entry, scores in scored:
            own = scores.by_class.get(name)
            texts = [shown(number) for number in own.numbers().values()] if own else [MISSING] * len(SUMMARY_KEYS)
            interval = ends((scores.confidence or {}).get(name))
            rows.append([name, entry.label, texts[0], interval, *texts[1:], str(own.instances) if own else MISSING])
            comparable += [len(rows) - 1] if entry.is_comparable else []
        for column in (2, *range(4, len(header) - 1)):
            known = [row for row in comparable if rows[row][column] != MISSING]
            top = max((rows[row][column] for row in known), default='')
            best |= {(row, column) for row in known if rows[row][column] == top and len(known) > 1}
    notes = ['95 % interval: of the mAP, by drawing the images anew; mAP_s, mAP_m, mAP_l: by COCO’s pixel sizes.']
    if any(not entry.is_comparable for entry, _ in scored):
        notes.append(
            '† on other data than the others, or of a checkpoint that the run does not have; not to be compared.'
        )
    absent = dict.fromkeys(name for entry in comparison.entries for name in entry.result.not_annotated)
    notes += [f'No {name} is annotated here: it has no score and no part in the mean.' for name in absent]
    return Table(f'{comparison.title}: {TYPE_NAMES[iou_type]}', header, rows, 2, notes, best)


def ends(interval: Interval | Estimate | None) -> str:
    """The two ends of an interval."""
    return MISSING if interval is None or interval.low is None else f'{interval.low:.3f}…{interval.high:.3f}'


def size_table(comparison: Comparison) -> Table:
    """Mask scores by size of the instance, in bins of the image area and of pixels."""
    rows = [
        [f'{SIZE_NAMES[size]} ({SIZE_UNITS[unit]})', entry.label, *_stratum(segm.per_size[unit][size])]
        for unit in SIZE_UNITS
        for size in SIZE_NAMES
        for entry, segm in comparison.scored('segm')
    ]
    return Table(f'{comparison.title}: masks by size', ['size', 'run', *_STRATUM], rows, 2)


def density_table(comparison: Comparison) -> Table:
    """Mask scores by the number of instances in the image."""
    scored = comparison.scored('segm')
    rows = [
        [name, entry.label, *_stratum(segm.per_density[name])]
        for name in DENSITY_NAMES
        if any(segm.per_density[name].images for _, segm in scored)
        for entry, segm in scored
    ]
    return Table(f'{comparison.title}: masks by density', ['instances per image', 'run', *_STRATUM], rows, 2)


def _stratum(scores: StratumScores) -> list[str]:
    by_class = map(shown, map(scores.per_class.get, CLASSES))
    return [shown(scores.mAP), *by_class, *_cells(scores, 'mAP_50', 'mAP_75', 'AR_100', 'instances', 'images')]


def _parts(comparison: Comparison, name: str) -> list[tuple[str, Any]]:
    """A part of the result file of each run that has it."""
    every = [(entry.label, getattr(entry.result, name)) for entry in comparison.entries]
    return [(label, part) for label, part in every if part is not None]


def _cells(part: Any, *names: str) -> list[str]:
    """Fields of a part as texts: counts whole, other numbers with three digits."""
    return [str(value) if isinstance(value := getattr(part, name), int) else shown(value) for name in names]


def speed_table(comparison: Comparison) -> Table:
    """Milliseconds per image, median and 95th percentile, of all and by stage; the model's size; peak memory."""
    rows = []
    for label, speed in _parts(comparison, 'speed'):
        times = [speed, *map(speed.stages.get, STAGE_NAMES)]
        texts = [f'{shown(one.median_ms, 0)} / {shown(one.p95_ms, 0)}' if one else MISSING for one in times]
        millions = speed.parameters and speed.parameters / 1e6
        sizes = [shown(millions, 1), shown(speed.gflops, 1)]
        memory = [shown(speed.peak_memory_mb, 0), shown(speed.peak_gpu_memory_mb, 0)]
        rows.append([label, speed.device, str(speed.threads or MISSING), *texts, *sizes, *memory])
    sizes = ['parameters, M', 'GFLOPs', 'peak memory, MB', 'peak GPU memory, MB']
    header = ['run', 'device', 'threads', 'all', *STAGE_NAMES, *sizes]
    notes = [
        'All: from the loaded batch to finished masks. Load: the wait for the batch. GFLOPs: of an image, a '
        'multiplication and its addition are two. Only times on the same, otherwise idle machine compare.'
    ]
    caption = f'{comparison.title}: ms per image, median / 95th percentile'
    return Table(caption, header, rows, 2, notes)


def error_table(comparison: Comparison) -> Table:
    """The share of instances found, split, merged and missed."""
    rows = [
        [name, label, *_cells(errors[name], *VERDICTS, 'instances')]
        for name in CLASSES
        for label, errors in _parts(comparison, 'segmentation_errors')
        if name in errors
    ]
    header = ['class', 'run', *(verdict.replace('_', '-') for verdict in VERDICTS), 'instances']
    notes = [
        'Predictions with a score of 0.5 or more. Over-segmented: several predictions on one instance; '
        'under-segmented: one prediction over several instances.'
    ]
    return Table(f'{comparison.title}: shares of instances', header, rows, 2, notes)


def operating_table(comparison: Comparison) -> Table:
    """Precision, recall and F1 at the threshold of ``val``, or at the one that suits the data best; calibration."""
    rows = []
    for name in CLASSES:
        for label, operation in _parts(comparison, 'operation'):
            one = operation.get(name)
            point = one and (one.of_val or one.best)
            if point:
                numbers = _cells(point, *point.__struct_fields__) + _cells(one, 'calibration_error')
                rows.append([name, label, 'val' if one.of_val else 'this data', *numbers])
    header = ['class', 'run', 'threshold chosen on', 'threshold', 'precision', 'recall', 'F1', 'calibration error']
    notes = [
        'The threshold of the highest F1. One that was chosen on the data itself flatters: test on val first, and the '
        'threshold of val is taken.'
    ]
    return Table(f'{comparison.title}: at one threshold, IoU 0.5', header, rows, 3, notes)


def pick_table(comparison: Comparison) -> Table:
    """Success of the first picks, and objects miscounted."""
    rows = [[label, *_cells(picks, *picks.__struct_fields__)] for label, picks in _parts(comparison, 'picks')]
    header = ['run', 'first', 'first three', 'first five', 'miscounted an image', 'counted from score', 'images']
    notes = [
        'The share of the surest masks whose most interior point lies on an object that was not picked before, and '
        'that cover no other object by more than a quarter.'
    ]
    return Table(f'{comparison.title}: picks of {OBJECT}s', header, rows, notes=notes)


def cost_table(comparison: Comparison) -> Table:
    """What each kind of error costs in AP at IoU 0.5, and the optimal LRP."""
    kinds = ErrorCosts.__struct_fields__
    rows = [
        [name, label, *_cells(one.costs[name], *kinds), shown(one.lrp[name].error if name in one.lrp else None)]
        for name in (MEAN, *CLASSES)
        for label, one in _parts(comparison, 'anatomy')
        if name in one.costs
    ]
    header = ['class', 'run', *kinds, 'LRP']
    notes = ['Kinds as in TIDE; gains do not add up. LRP: optimal localisation recall precision error, less is better.']
    caption = f'{comparison.title}: AP at IoU 0.5 to be gained by correcting all errors of a kind'
    return Table(caption, header, rows, 2, notes)


def confusion_table(comparison: Comparison) -> Table:
    """What instances are taken for, and what detections lie on."""
    rows = [
        [label, truth, *(str(row.get(name, MISSING)) for name in (*CLASSES, 'missed'))]
        for label, one in _parts(comparison, 'anatomy')
        for truth, row in one.confusion.items()
    ]
    header = ['run', 'annotated', *(f'as {name}' for name in CLASSES), 'missed']
    notes = ['Instances and predictions with a score of 0.5 or more, matched at mask IoU 0.5, own class first.']
    return Table(f'{comparison.title}: confusion', header, rows, 2, notes)


def suspect_table(comparison: Comparison) -> Table:
    """The labels that sure detections contradict, the surest first."""
    rows = []
    notes = ['Where a model is sure and the labels say otherwise, one of both is wrong: look before you mend.']
    for run, anatomy in _parts(comparison, 'anatomy'):
        for one in anatomy.suspects:
            label = MISSING if one.annotated is None else f'{one.annotated} {one.annotation_id}'
            where = f'{one.predicted} at {", ".join(f"{side:.0f}" for side in one.box)}'
            image = one.image or str(one.image_id)
            rows.append([run, image, one.fault, label, where, shown(one.score), shown(one.iou)])
        if anatomy.suspected > len(anatomy.suspects):
            notes.append(f'{run}: the worst {len(anatomy.suspects)} of {anatomy.suspected}.')
    header = ['run', 'image', 'fault', 'annotation', 'prediction at x, y, width, height', 'score', 'IoU']
    return Table(f'{comparison.title}: suspected labels', header, rows, 5, notes)


def corruption_table(runs: Sequence[Run]) -> Table:
    """Mask mAP of the photos as they are, and under corruption."""
    rows = []
    for run in runs:
        for found in run.corruptions:
            for name, clean in found.clean.items():
                if clean is not None:  # a class that the subset does not annotate
                    mean, share = found.performance(name)
                    rows.append([f'{found.subset} {found.split}', name, run.name, *map(shown, (clean, mean, share))])
    rows.sort(key=lambda row: (subset_order(row[0].split()[0]), row[:2]))
    header = ['tested on', 'class', 'run', 'clean mAP', 'mPC', 'rPC']
    notes = [
        f'mPC: the mean mAP under {len(CORRUPTIONS)} corruptions of {len(SEVERITIES)} severities; rPC: its share of '
        'the clean mAP. Source: arXiv 1907.07484.'
    ]
    return Table('Masks under corruption', header, rows, 3, notes)


def published_table() -> Table:
    """Every published number with its split, protocol and caveat."""
    published = yaml.safe_load((Path(__file__).parent / 'published.yml').read_text(encoding='utf-8'))
    rows = []
    for one in published:
        scores = [one['scores'].get(subset, MISSING) for subset in SUBSETS]
        rows.append([f'{one["source"]} ({one["where"]})', *scores, one['split'], one['protocol'], one['caveat']])
    header = ['source', *SUBSETS, 'split', 'protocol', 'caveat']
    return Table('Published by others, on the ARMBench photos', header, rows, text_columns=len(header))


def facts(run: Run) -> dict[str, str]:
    """How a run came about: its folder, its record and what each of its results was measured on, by dotted keys."""
    known = {'folder': str(run.work_dir), **(leaves(msgspec.to_builtins(run.record)) if run.record else {})}
    for one in run.evaluations:
        known |= leaves(msgspec.to_builtins(one.result.identity), f'result on {one.subset} {one.split}: ')
    return {name: value.strip("'") for name, value in known.items() if value not in ('None', '[]', 'dict()', "''")}
