"""The answer that a report opens with: which run is better on what, by how much, and how sure that is.

Runs that differ by their seed alone are one *contender*: the mean of their scores, and its standard deviation.
"""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import Estimate, MatchTable, difference_intervals, group_intervals
from armbench_mmdet.evaluation.result import MEAN, MISSING, shown
from armbench_mmdet.report.collect import Comparison, Entry
from armbench_mmdet.report.plots import Plot, plot_layout, trace
from armbench_mmdet.report.tables import OBJECT, Row, Table, ends, together


def contenders(comparison: Comparison) -> dict[str, list[Entry]]:
    """Those with comparable masks, by their names: a run, or the first of those that differ by their seed alone."""
    groups: dict[str, list[Entry]] = {}
    for entry in comparison.entries:
        if entry.is_comparable and 'segm' in entry.evaluation.tables:
            groups.setdefault(entry.run.recipe, []).append(entry)
    return {own[0].run.name + (f' ({len(own)} seeds)' if len(own) > 1 else ''): own for own in groups.values()}


def _mask_tables(entries: Sequence[Entry]) -> list[MatchTable]:
    return [entry.evaluation.tables['segm'] for entry in entries]


class Answer(NamedTuple):
    """What a comparison says of the object class, or of the mean where objects are not annotated.

    ``scored`` has the contenders' mask mAP, the best first; the ``winner`` is better than the next with certainty.
    """

    title: str
    scored: list[tuple[str, Estimate]]
    winner: str | None
    sentence: str


def answer_of(comparison: Comparison) -> Answer | None:
    """The answer on a subset and split, None where there is nothing to compare or to say."""
    tables = {name: _mask_tables(own) for name, own in contenders(comparison).items()}
    intervals = {name: group_intervals(own) for name, own in tables.items()}
    kind = OBJECT if any(OBJECT in own for own in intervals.values()) else MEAN
    scored = [(name, own[kind]) for name, own in intervals.items() if kind in own and own[kind].value is not None]
    scored.sort(key=lambda pair: -(pair[1].value or 0))
    if not scored:
        return None
    (best, estimate), *others = scored
    about, winner = f'{kind} masks, AP {shown(estimate.value)}', None
    if not others:
        sentence = f'{best}: {about} (95 % interval {ends(estimate)}).'
    else:
        other, theirs = others[0]
        try:
            gap = difference_intervals(tables[best], tables[other])[kind]
        except InputError as error:
            return Answer(comparison.title, scored, None, f'{best} and {other} cannot be compared: {error}.')
        by = f'{about} against {shown(theirs.value)}: {gap.value or 0:+.3f} (95 % interval {ends(gap)})'
        if (gap.low or 0) > 0:
            winner = best
            of = f', the best of {len(scored)},' if len(scored) > 2 else ''
            sentence = f'{best}{of} is better than {other} at {by}.'
        else:
            sentence = f'{best} and {other} cannot be told apart by {by}.'
    return Answer(comparison.title, scored, winner, sentence)


def headline(found: Sequence[Answer]) -> str:
    """The answer in a sentence, where there is one to all subsets."""
    winners = {answer.winner for answer in found}
    where = 'on every subset' if len(found) > 1 else f'on {found[0].title}' if found else ''
    return f'{winners.pop()} is better {where}.' if len(winners) == 1 and None not in winners else ''


def answer_plot(found: Sequence[Answer]) -> Plot:
    """Mask mAP of every contender with its interval, on each subset."""
    scored = {a.title.replace('-transfer-set', '').replace(', ', '<br>'): dict(a.scored) for a in found}
    traces = []
    for number, name in enumerate(dict.fromkeys(name for own in scored.values() for name in own)):
        titles = [title for title, own in scored.items() if name in own]
        values, low, high = np.array([scored[title][name] for title in titles], float).T
        sides = {'array': (high - values).tolist(), 'arrayminus': (values - low).tolist()}
        error = {'type': 'data', 'symmetric': False, **sides, 'thickness': 2, 'width': 0}
        own = trace(values.tolist(), values.tolist(), name, number, mode='markers', marker={'size': 11})
        traces.append({**own, 'y': titles, 'orientation': 'h', 'error_x': error})
    layout = plot_layout(f'{OBJECT} mask AP, with 95 % interval', '', 150 + 70 * len(found), scattermode='group')
    layout['yaxis']['autorange'] = 'reversed'
    return Plot('Which run finds objects better', traces, layout)


def seeds_table(comparison: Comparison) -> Table:
    """Mean and standard deviation over seeds, a row for each class of runs that differ by their seed alone."""
    rows: list[Row] = []
    for contender, own in contenders(comparison).items():
        for name, estimate in group_intervals(_mask_tables(own)).items() if len(own) > 1 else ():
            scores = [entry.result.scores['segm'].by_class[name] for entry in own]
            spread = {key: _spread([getattr(one, key) for one in scores]) for key in ('mAP', 'mAP_50', 'mAP_75')}
            rows.append({'class': name, 'runs': contender, **spread, '95 % interval of the mean mAP': ends(estimate)})
    return Table.of(f'{comparison.title}: masks, mean ± standard deviation over seeds', together(rows), 2)


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f'{fmean(known):.3f} ± {stdev(known):.3f}' if len(known) > 1 else MISSING
