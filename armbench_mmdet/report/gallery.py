"""The pictures of every run's results, no more than a page can carry."""

from __future__ import annotations

import base64
import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from armbench_mmdet.errors import InputError
from armbench_mmdet.report.runs import Run

if TYPE_CHECKING:
    from armbench_mmdet.report.pictures import Picture

BUDGET_BYTES = 8_500_000
"""Of all pictures as they stand in the page; with the plots' code it stays below 15 MB."""


@dataclasses.dataclass(frozen=True)
class Shot:
    """A picture of a run, its place among those of its kind, and its source as the page has it."""

    run: str
    picture: Picture
    rank: int
    source: str


def gallery(runs: Sequence[Run], budget_bytes: int = BUDGET_BYTES) -> tuple[list[Shot], list[str]]:
    """Draw the best, median and worst images of every result.

    Of what does not fit, the lower ranks go first.

    Args:
        runs: The runs.
        budget_bytes: For all of them together.

    Returns:
        The pictures in the order of the runs, and what is missing, a line each.
    """
    from armbench_mmdet.report.pictures import pictures  # draws with OpenCV: not for tables alone

    shots: list[Shot] = []
    notes: list[str] = []
    for run in runs:
        for evaluation in run.evaluations:
            try:
                drawn = pictures(evaluation.path)
            except InputError as error:
                notes.append(f'{run.name}: no pictures of {evaluation.subset} {evaluation.split}: {error}')
                continue
            ranks: Counter[tuple[str, str]] = Counter()
            for picture in drawn:
                source = 'data:image/jpeg;base64,' + base64.b64encode(picture.jpeg).decode()
                shots.append(Shot(run.name, picture, ranks[picture.kind, picture.class_name], source))
                ranks[picture.kind, picture.class_name] += 1
    kept = _fitting(shots, budget_bytes)
    if len(kept) < len(shots):
        notes.append(
            f'{len(shots) - len(kept)} of {len(shots)} pictures, of lower ranks, are left out to keep the page small'
        )
    return kept, notes


def _fitting(shots: Sequence[Shot], budget_bytes: int) -> list[Shot]:
    kept, used = set(), 0
    for number, shot in sorted(enumerate(shots), key=lambda pair: pair[1].rank):
        used += len(shot.source)
        if used > budget_bytes:
            break
        kept.add(number)
    return [shot for number, shot in enumerate(shots) if number in kept]
