"""Which results may stand beside each other: those on the same images."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from armbench_mmdet.datasets.locations import SUBSETS
from armbench_mmdet.report.evaluations import Evaluation
from armbench_mmdet.report.runs import Run

SPLIT_ORDER = ('test', 'val', 'train')


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run's result; ``is_comparable`` if it stands on the data that most of the others stand on."""

    run: Run
    evaluation: Evaluation
    is_comparable: bool

    @property
    def label(self) -> str:
        """The run's name, with a dagger where the data are other ones."""
        return self.run.name if self.is_comparable else f'{self.run.name} †'


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Every run's result on one subset and split."""

    subset: str
    split: str
    entries: tuple[Entry, ...]

    @property
    def title(self) -> str:
        """Subset and split."""
        return f'{self.subset}, {self.split}'

    @property
    def comparable(self) -> tuple[Entry, ...]:
        """The entries on the same data."""
        return tuple(entry for entry in self.entries if entry.is_comparable)


def comparisons(runs: Sequence[Run]) -> tuple[list[Comparison], list[str]]:
    """Put the results on the same subset and split together.

    Data are the same if their fingerprints are; a result without one can be compared with none.

    Returns:
        By subset and split; and a line for each result that stands on other data than the others.
    """
    found = {(evaluation.subset, evaluation.split) for run in runs for evaluation in run.evaluations}
    result, problems = [], []
    for subset, split in sorted(found, key=lambda key: (SUBSETS.index(key[0]), SPLIT_ORDER.index(key[1]))):
        pairs = [(r, e) for r in runs for e in r.evaluations if (e.subset, e.split) == (subset, split)]
        known = Counter(evaluation.fingerprint for _, evaluation in pairs if evaluation.fingerprint)
        common = known.most_common(1)[0][0] if known else None
        first = next((run.name for run, evaluation in pairs if evaluation.fingerprint == common), None)
        entries = []
        for run, evaluation in pairs:
            is_comparable = (common is not None and evaluation.fingerprint == common) or len(pairs) == 1
            entries.append(Entry(run, evaluation, is_comparable))
            if not is_comparable:
                problems.append(
                    f'{run.name}: result on {subset} {split} must be on the same data to be compared, got '
                    f'{_short(evaluation.fingerprint)}' + (f' where {first} has {_short(common)}' if common else '')
                )
        result.append(Comparison(subset, split, tuple(entries)))
    return result, problems


def _short(fingerprint: str | None) -> str:
    return 'no data fingerprint' if fingerprint is None else fingerprint[:19] + '…'
