"""The answer that a report opens with: which run is better on what, by how much, and how sure that is.

Runs that differ by their seed alone are one *contender*: the mean of their scores, and its standard deviation.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import Estimate, MatchTable, difference_intervals, group_intervals
from armbench_mmdet.evaluation.result import MEAN, MISSING, shown
from armbench_mmdet.report.collect import Comparison, Entry, shortened
from armbench_mmdet.report.plots import Plot, plot_layout, trace
from armbench_mmdet.report.tables import OBJECT, Table, ends

_OFFSET = 0.16


@dataclasses.dataclass(frozen=True)
class Contender:
    """The results of a run on one subset and split, or of runs that differ by their seed alone."""

    name: str
    entries: list[Entry]

    @property
    def tables(self) -> list[MatchTable]:
        """The match tables of masks."""
        return [entry.evaluation.tables['segm'] for entry in self.entries]


def contenders(comparison: Comparison) -> list[Contender]:
    """Those with comparable masks, in the report's order."""
    groups: dict[str, list[Entry]] = {}
    for entry in comparison.entries:
        if entry.is_comparable and 'segm' in entry.evaluation.tables:
            groups.setdefault(entry.run.recipe, []).append(entry)
    names = [Path(own[0].run.config_path or '').stem if len(own) > 1 else own[0].run.name for own in groups.values()]
    if len(set(names)) < len(names):
        names = [own[0].run.name for own in groups.values()]
    return [
        Contender(f'{name} ({len(own)} seeds)' if len(own) > 1 else name, own)
        for name, own in zip(shortened(names), groups.values(), strict=True)
    ]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a comparison says of the object class, or of the mean where objects are not annotated.

    Attributes:
        scored: The contenders and their mask mAP, the best first.
        winner: The one that is better than the next with certainty, None where that cannot be told.
    """

    title: str
    scored: list[tuple[Contender, Estimate]]
    winner: str | None
    sentence: str


def answers(compared: Sequence[Comparison]) -> list[Answer]:
    """An answer for each subset and split on which there is anything to compare or to say."""
    return [answer for comparison in compared if (answer := _answer(comparison))]


def _answer(comparison: Comparison) -> Answer | None:
    every = [(one, group_intervals(one.tables)) for one in contenders(comparison)]
    name = OBJECT if any(OBJECT in intervals for _, intervals in every) else MEAN
    scored = [(one, intervals[name]) for one, intervals in every if name in intervals]
    scored = sorted((pair for pair in scored if pair[1].value is not None), key=lambda pair: -(pair[1].value or 0))
    if not scored:
        return None
    best, estimate = scored[0]
    about, winner = f'{name} masks, AP {shown(estimate.value)}', None
    if len(scored) == 1:
        sentence = f'{best.name}: {about} (95 % interval {ends(estimate)}).'
    else:
        other, theirs = scored[1]
        try:
            gap = difference_intervals(best.tables, other.tables)[name]
        except InputError as error:
            return Answer(comparison.title, scored, None, f'{best.name} and {other.name} cannot be compared: {error}.')
        by = f'{about} against {shown(theirs.value)}: {gap.value or 0:+.3f} (95 % interval {ends(gap)})'
        of = f', the best of {len(scored)},' if len(scored) > 2 else ''
        if (gap.low or 0) > 0:
            winner, verdict = best.name, f'{of} is better than {other.name} at'
        else:
            verdict = f' and {other.name} cannot be told apart by'
        sentence = f'{best.name}{verdict} {by}.'
    return Answer(comparison.title, scored, winner, sentence)


def headline(found: Sequence[Answer]) -> str:
    """The answer in a sentence, where there is one to all subsets."""
    winners = {answer.winner for answer in found}
    where = 'on every subset' if len(found) > 1 else f'on {found[0].title}' if found else ''
    return f'{winners.pop()} is better {where}.' if len(winners) == 1 and None not in winners else ''


def answer_plot(found: Sequence[Answer]) -> Plot:
    """Mask mAP of every contender with its interval, on each subset."""
    names = list(dict.fromkeys(one.name for answer in found for one, _ in answer.scored))
    traces = []
    for number, name in enumerate(names):
        shift = (number - (len(names) - 1) / 2) * _OFFSET
        own = [(row + shift, e) for row, answer in enumerate(found) for one, e in answer.scored if one.name == name]
        rows, estimates = zip(*own, strict=True)
        values, low, high = np.array(estimates, float).T
        sides = {'array': (high - values).tolist(), 'arrayminus': (values - low).tolist()}
        error = {'type': 'data', 'symmetric': False, **sides, 'thickness': 2, 'width': 0}
        traces.append(trace(values.tolist(), rows, name, number, mode='markers', marker={'size': 11}, error_x=error))
    layout = plot_layout(f'{OBJECT} mask AP, with 95 % interval', '', 150 + 70 * len(found))
    titles = [answer.title.replace('-transfer-set', '').replace(', ', '<br>') for answer in found]
    layout['yaxis'] |= {'tickvals': [*range(len(found))], 'ticktext': titles, 'range': [len(found) - 0.5, -0.5]}
    return Plot('Which run finds objects better', traces, layout)


def seeds_table(comparison: Comparison) -> Table:
    """Mean and standard deviation over seeds, a row for each class of runs that differ by their seed alone."""
    rows = []
    for one in contenders(comparison):
        for name, estimate in group_intervals(one.tables).items() if len(one.entries) > 1 else ():
            scores = [entry.result.scores['segm'].by_class[name] for entry in one.entries]
            spread = [_spread([getattr(own, key) for own in scores]) for key in ('mAP', 'mAP_50', 'mAP_75')]
            rows.append([name, one.name, *spread, ends(estimate)])
    header = ['class', 'runs', 'mAP', 'mAP_50', 'mAP_75', '95 % interval of the mAP']
    notes = ['The interval is of the mean: images are drawn anew, and runs too.']
    return Table(f'{comparison.title}: masks, mean ± standard deviation over seeds', header, rows, 2, notes)


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f'{fmean(known):.3f} ± {stdev(known):.3f}' if len(known) > 1 else MISSING
