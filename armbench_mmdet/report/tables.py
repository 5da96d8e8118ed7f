"""Tables of runs, scores, parts of the result files and published numbers, and the provenance of a run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml
from msgspec.structs import asdict
from tabulate import tabulate

from armbench_mmdet.configs import leaves
from armbench_mmdet.datasets.release import CLASSES
from armbench_mmdet.evaluation.matches import Estimate
from armbench_mmdet.evaluation.result import MEAN, MISSING, Interval, Result, StratumScores, shown
from armbench_mmdet.report.collect import Comparison, Run, subset_order

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

Row = dict[str, Any]  # the values of a row by the names of their columns


class Table(NamedTuple):
    """A table for the page and for Markdown; ``text_columns`` at the left are text, the others are numbers.

    ``best`` has the rows and columns of the cells that are the best of those they may be compared with.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int
    best: Collection[tuple[int, int]] = ()

    @classmethod
    def of(cls, caption: str, rows: Sequence[Mapping[str, Any]], text_columns: int) -> Table:
        """Make a table: texts and counts as they are, other numbers with three digits, – for what is not there."""
        header = list(dict.fromkeys(name for row in rows for name in row))
        values = [[row.get(name) for name in header] for row in rows]
        cells = [[str(one) if isinstance(one, str | int) else shown(one) for one in row] for row in values]
        return cls(caption, header, cells, text_columns)

    def markdown(self) -> str:
        """Caption and table as Markdown."""
        rows = [
            [f'**{cell}**' if (i, j) in self.best else cell.replace('|', '\\|') for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]
        align = ['left'] * self.text_columns + ['right'] * (len(self.header) - self.text_columns)
        # Not 'github': that one aligns what a terminal shows, and not what Markdown is rendered to.
        table = tabulate(rows, self.header, tablefmt='pipe', disable_numparse=True, colalign=align)
        return f'**{self.caption}**\n\n{table}'


def run_table(runs: Sequence[Run]) -> Table:
    """One line a run."""
    rows = []
    for run in runs:
        data = f'minibench (procedural): {run.trained_on}' if run.is_procedural else run.trained_on
        row = {'run': run.name, 'status': run.status, 'config': run.config_path, 'trained on': data}
        of = [f'{e.subset} {e.split} ({Path(e.result.identity.checkpoint or MISSING).name})' for e in run.evaluations]
        rows.append({**row, 'iterations': run.last_step, 'results on': ', '.join(of) or None})
    return Table.of('Runs', rows, 6)


def overview(compared: Sequence[Comparison]) -> Table:
    """The main scores of every result."""
    rows = [
        {'run': e.label, 'trained on': e.run.trained_on, 'tested on': comparison.title, **main_scores(e.result)}
        for comparison in compared
        for e in comparison.entries
    ]
    return Table.of('Results', rows, 3)


def main_scores(result: Result) -> Row:
    """The main scores of a result, None where there is none."""
    own = {iou_type: scores.by_class for iou_type, scores in result.scores.items()}
    return {title: getattr(own.get(kind, {}).get(name), key, None) for title, (kind, name, key) in MAIN_SCORES.items()}


def ends(interval: Interval | Estimate | None) -> str:
    """The two ends of an interval."""
    return MISSING if interval is None or interval.low is None else f'{interval.low:.3f}…{interval.high:.3f}'


def together(rows: list[Row]) -> list[Row]:
    """Rows that are alike in their first column, one below the other."""
    firsts = [next(iter(row.values())) for row in rows]
    return sorted(rows, key=lambda row: firsts.index(next(iter(row.values()))))


@dataclass(frozen=True)
class Breakdown:
    """A table of a part of the result files on a subset and split, made of the rows of each run's result."""

    caption: str
    rows: Callable[[str, Result], Iterable[Row]]
    text_columns: int = 2

    def __call__(self, comparison: Comparison) -> Table:
        """The table of a subset and split."""
        rows = [row for entry in comparison.entries for row in self.rows(entry.label, entry.result)]
        return Table.of(f'{comparison.title}: {self.caption}', together(rows), self.text_columns)


def score_table(comparison: Comparison, iou_type: str) -> Table:
    """Every run's scores under an IoU type, of both classes' mean and of each class.

    The best of what may be compared is marked, as far as three digits tell.
    """
    absent = dict.fromkeys(name for entry in comparison.entries for name in entry.result.not_annotated)
    caption = TYPE_NAMES[iou_type] + ''.join(f'; no {name} is annotated' for name in absent)
    table = Breakdown(caption, partial(score_rows, iou_type=iou_type))(comparison)
    comparable = {entry.label for entry in comparison.entries if entry.is_comparable}
    best: set[tuple[int, int]] = set()
    for j in (2, *range(4, len(table.header) - 1)):
        for name in {row[0] for row in table.rows}:
            own = [(i, row) for i, row in enumerate(table.rows) if row[0] == name and row[1] in comparable]
            known = {i: row[j] for i, row in own if row[j] != MISSING}
            best |= {(i, j) for i, cell in known.items() if len(known) > 1 and cell == max(known.values())}
    return table._replace(best=best)


def score_rows(run: str, result: Result, iou_type: str) -> Iterable[Row]:
    """Scores under an IoU type, of both classes' mean and of each class."""
    if scores := result.scores.get(iou_type):
        for name, one in scores.by_class.items():
            interval = ends((scores.confidence or {}).get(name))
            first = {'class': name, 'run': run, 'mAP': one.mAP, '95 % interval': interval}
            yield {**first, **one.numbers(), 'instances': one.instances}


def _stratum(scores: StratumScores) -> Row:
    numbers = asdict(scores)
    per_class = numbers.pop('per_class')
    return {**numbers, **{f'{name} mAP': per_class.get(name) for name in CLASSES}}


def size_rows(run: str, result: Result) -> Iterable[Row]:
    """Mask scores by size of the instance, in bins of the image area and of pixels."""
    for unit, sizes in result.segm.per_size.items() if result.segm else ():
        for size, scores in sizes.items():
            yield {'size': f'{size}, {unit}', 'run': run, **_stratum(scores)}


def density_rows(run: str, result: Result) -> Iterable[Row]:
    """Mask scores by the number of instances in the image."""
    for name, scores in result.segm.per_density.items() if result.segm else ():
        if scores.images:
            yield {'instances per image': name, 'run': run, **_stratum(scores)}


def speed_rows(run: str, result: Result) -> Iterable[Row]:
    """Milliseconds per image, median and 95th percentile, of all and by stage; the model's size; peak memory."""
    if speed := result.speed:
        row = {'run': run, 'device': speed.device, 'threads': speed.threads}
        for name, one in {'all': speed, **speed.stages}.items():
            row[name] = f'{shown(one.median_ms, 0)} / {shown(one.p95_ms, 0)}'
        millions = speed.parameters and speed.parameters / 1e6
        row |= {'parameters, M': shown(millions, 1), 'GFLOPs': shown(speed.gflops, 1)}
        memory = {'peak memory, MB': speed.peak_memory_mb, 'peak GPU memory, MB': speed.peak_gpu_memory_mb}
        yield {**row, **{name: shown(value, 0) for name, value in memory.items()}}


def error_rows(run: str, result: Result) -> Iterable[Row]:
    """The share of instances found, split, merged and missed."""
    for name, errors in (result.segmentation_errors or {}).items():
        yield {'class': name, 'run': run, **asdict(errors)}


def operating_rows(run: str, result: Result) -> Iterable[Row]:
    """Precision, recall and F1 at the threshold of ``val``, or at the one that suits the data best; calibration."""
    for name, one in (result.operation or {}).items():
        if point := one.of_val or one.best:
            row = {'class': name, 'run': run, 'threshold chosen on': 'val' if one.of_val else 'this data'}
            yield {**row, **asdict(point), 'calibration error': one.calibration_error}


def pick_rows(run: str, result: Result) -> Iterable[Row]:
    """Success of the first picks, and objects miscounted."""
    return [{'run': run, **asdict(result.picks)}] if result.picks else []


def cost_rows(run: str, result: Result) -> Iterable[Row]:
    """What each kind of error costs in AP at IoU 0.5, and the optimal LRP."""
    if anatomy := result.anatomy:
        for name, costs in anatomy.costs.items():
            yield {'class': name, 'run': run, **asdict(costs), 'LRP': getattr(anatomy.lrp.get(name), 'error', None)}


def confusion_rows(run: str, result: Result) -> Iterable[Row]:
    """What instances are taken for, and what detections lie on."""
    for truth, counts in result.anatomy.confusion.items() if result.anatomy else ():
        yield {'annotated': truth, 'run': run, **{f'as {name}': counts.get(name) for name in (*CLASSES, 'missed')}}


def suspect_rows(run: str, result: Result) -> Iterable[Row]:
    """The labels that sure detections contradict, the surest first."""
    for one in result.anatomy.suspects if result.anatomy else ():
        yield {
            'run': run,
            'image': one.image or str(one.image_id),
            'fault': one.fault,
            'annotation': one.annotated and f'{one.annotated} {one.annotation_id}',
            'prediction at x, y, width, height': f'{one.predicted} at {", ".join(f"{side:.0f}" for side in one.box)}',
            'score': one.score,
            'IoU': one.iou,
        }


def corruption_table(runs: Sequence[Run]) -> Table:
    """Mask mAP of the photos as they are, and under corruption."""
    rows: list[Row] = []
    for run in runs:
        for found in run.corruptions:
            for name, clean in found.clean.items():
                if clean is not None:  # a class that the subset does not annotate
                    mean, share = found.performance(name)
                    about = {'tested on': f'{found.subset} {found.split}', 'class': name, 'run': run.name}
                    rows.append({**about, 'clean mAP': clean, 'mPC': mean, 'rPC': share})
    rows.sort(key=lambda row: (subset_order(row['tested on'].split()[0]), row['tested on'], row['class']))
    return Table.of('Masks under corruption', rows, 3)


def published_table() -> Table:
    """Every published number with its split, protocol and caveat."""
    rows = yaml.safe_load((Path(__file__).parent / 'published.yml').read_text(encoding='utf-8'))
    return Table.of('Published by others, on the ARMBench photos', rows, text_columns=7)


def facts(run: Run) -> dict[str, str]:
    """How a run came about: its folder, its record and what each of its results was measured on, by dotted keys."""
    known = {'folder': str(run.work_dir), **(leaves(msgspec.to_builtins(run.record)) if run.record else {})}
    for one in run.evaluations:
        known |= leaves(msgspec.to_builtins(one.result.identity), f'result on {one.subset} {one.split}: ')
    return {name: value.strip("'") for name, value in known.items() if value not in ('None', '[]', 'dict()', "''")}
