"""What a report of some runs says, gathered once for every form it is written in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from armbench_mmdet.datasets.locations import SUBSETS
from armbench_mmdet.evaluation.result import MISSING
from armbench_mmdet.report.collect import SPLIT_ORDER, Comparison, Run, collect_runs, comparisons
from armbench_mmdet.report.pictures import Shot, gallery
from armbench_mmdet.report.tables import (
    MAIN_SCORES,
    Table,
    cells,
    density_table,
    difference_table,
    error_table,
    main_scores,
    markdown_table,
    matrix_table,
    score_table,
    size_table,
    speed_table,
)

PROCEDURAL = (
    'Minibench: these are procedurally drawn totes, not ARMBench photos. The numbers show that everything works and '
    'how runs compare; they say nothing about performance on ARMBench.'
)
ELSEWHERE = (
    'On ARMBench’s photos, by others, under protocols of their own. Shown for orientation; none of them may be set '
    'against a number of this report without reading its caveat.'
)


@dataclasses.dataclass(frozen=True)
class Report:
    """What there is to report.

    Attributes:
        runs: In the order given.
        problems: What is missing, broken or unfinished, a line each.
        compared: The results by subset and split.
        scores: By subset and IoU type: scores, then differences where there are two runs.
        matrices: Training subset against test subset, for each split.
        shots: The pictures.
        made: When.
    """

    runs: list[Run]
    problems: list[str]
    compared: list[Comparison]
    scores: list[Table]
    matrices: list[Table]
    shots: list[Shot]
    made: str

    @property
    def is_procedural(self) -> bool:
        """Whether any run is on minibench."""
        return any(run.is_procedural for run in self.runs)

    def run_table(self) -> Table:
        """One line a run."""
        rows = []
        for run in self.runs:
            done = ', '.join(f'{e.subset} {e.split}' for e in run.evaluations) or MISSING
            data = run.trained_on or MISSING
            data = f'minibench (procedural): {data}' if run.is_procedural else data
            steps = MISSING if run.log.last_step is None else str(run.log.last_step)
            rows.append(cells(run.name, run.status, run.config_path or MISSING, data, steps, done))
        header = ['run', 'status', 'config', 'trained on', 'iterations', 'results on']
        return Table('Runs', header, rows, text_columns=len(header))

    def overview(self) -> str:
        """The main scores of every result as one table for a terminal."""
        rows = [
            [entry.label, entry.run.trained_on or MISSING, comparison.title, *main_scores(entry.evaluation.result)]
            for comparison in self.compared
            for entry in comparison.entries
        ]
        return markdown_table(['run', 'trained on', 'tested on', *MAIN_SCORES], rows, text_columns=3)


def gather(work_dirs: Sequence[str | Path]) -> Report:
    """Read the runs and compute what the report shows.

    Raises:
        InputError: There is nothing to report at all.
    """
    runs, problems = collect_runs(work_dirs)
    compared, unlike = comparisons(runs)
    scores: list[Table] = []
    for comparison in compared:
        for iou_type in ('segm', 'boundary', 'bbox'):
            if any(iou_type in entry.evaluation.result.scores for entry in comparison.entries):
                scores.append(score_table(comparison, iou_type))
                difference = difference_table(comparison, iou_type)
                scores += [difference] if difference else []
    splits = [split for split in SPLIT_ORDER if any(comparison.split == split for comparison in compared)]
    shots, missing = gallery(runs)
    return Report(
        runs=runs,
        problems=problems + unlike + missing,
        compared=compared,
        scores=scores,
        matrices=[matrix_table(compared, split, SUBSETS) for split in splits],
        shots=shots,
        made=datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M UTC'),
    )


def part_tables(comparison: Comparison) -> list[Table]:
    """Sizes, densities, speed and errors of a subset; a table without rows is left out."""
    every = [size_table(comparison), density_table(comparison), speed_table(comparison), error_table(comparison)]
    return [table for table in every if table.rows]
