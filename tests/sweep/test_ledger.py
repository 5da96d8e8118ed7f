"""What a study's trials add up to."""

from __future__ import annotations

from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from armbench_mmdet.sweep.study import Watch, failures_in_a_row, next_attempt, tally

STATES = {
    'C': TrialState.COMPLETE,
    'P': TrialState.PRUNED,
    'F': TrialState.FAIL,
    'D': TrialState.FAIL,
    'I': TrialState.FAIL,
    'R': TrialState.RUNNING,
    'W': TrialState.WAITING,
}
LOST = {'D': 'died', 'I': 'interrupted'}


def make(text: str) -> list[FrozenTrial]:
    """Trials from words such as ``C``, ``D`` (died), ``I`` (interrupted), ``R0.1`` (running, attempt 1 of 0)."""
    trials = []
    for number, word in enumerate(text.split()):
        state, retry = STATES[word[0]], word[1:]
        attributes: dict = {'outcome': {'lost': LOST.get(word[0], '')}} if state == TrialState.FAIL else {}
        if retry:
            first, attempt = retry.split('.')
            attributes |= {'retry_of': int(first), 'attempt': int(attempt)}
        trial = optuna.create_trial(state=state, value=1.0 if word[0] == 'C' else None, user_attrs=attributes)
        trial.number = number
        trial.datetime_start = datetime(2026, 1, 1)
        trial.datetime_complete = datetime(2026, 1, 1) + timedelta(minutes=number) if state.is_finished() else None
        trials.append(trial)
    return trials


@pytest.mark.parametrize(
    ('trials', 'settled', 'logical', 'owed'),
    [
        ('', 0, 0, []),
        ('C P F R W', 3, 5, []),
        ('D', 0, 1, [0]),
        ('D R0.1', 0, 1, []),
        ('D C0.1', 1, 1, []),
        ('D D0.1', 0, 1, [1]),
        ('D D0.1 D0.2', 1, 1, []),  # two retries are all there are
        ('I I0.0 I0.0 I0.0', 0, 1, [3]),  # interruptions do not count
        ('C D D R2.1 C1.1', 2, 3, []),
    ],
)
def test_tally(trials: str, settled: int, logical: int, owed: list[int]) -> None:
    count = tally(make(trials), max_retries=2)
    assert count.settled == settled
    assert len(count.latest) == logical
    assert [trial.number for trial in count.owed] == owed


@pytest.mark.parametrize(('word', 'attempt'), [('D', 1), ('I', 0), ('D0.1', 2), ('I0.1', 1)])
def test_next_attempt(word: str, attempt: int) -> None:
    trial = make(f'C {word}')[1]
    assert next_attempt(trial) == {'retry_of': 0 if '0' in word else 1, 'attempt': attempt}


@pytest.mark.parametrize(
    ('trials', 'forgiven', 'run'),
    [
        ('C F F', [], [1, 2]),
        ('F F C', [], []),
        ('F P F', [], [2]),
        ('C F F F', [1, 2], [3]),
        ('C D F', [], [2]),  # a lost trial will be tried again
        ('C D F D1.2', [], [2, 3]),  # but not for ever
        ('F R F', [], [0, 2]),
    ],
)
def test_failures_in_a_row(trials: str, forgiven: list[int], run: list[int]) -> None:
    found = failures_in_a_row(tally(make(trials), max_retries=2), forgiven)
    assert [trial.number for trial in found] == run


def beating(beat: int | None) -> list[FrozenTrial]:
    trial = make('R')[0]
    if beat is not None:
        trial.user_attrs['heartbeat'] = ['worker', beat]
    return [trial, *make('C C')[1:]]


@pytest.mark.parametrize(
    ('looks', 'is_dead'),
    [
        ([(0, 1), (4, 1), (8, 1), (11, 1)], True),
        ([(0, 1), (4, 1), (8, 2), (11, 2)], False),
        ([(0, None), (4, None), (8, None), (11, None)], True),  # its worker died before the first beat
        ([(0, 1), (4, 1), (20, 1)], False),  # nobody watched in between
        ([(0, 1), (4, 1), (20, 1), (24, 1), (28, 1), (31, 1)], True),
        ([(11, 1)], False),
    ],
)
def test_watch(looks: list[tuple[float, int | None]], is_dead: bool) -> None:
    watch = Watch(grace_s=10, gap_s=5)
    found: list[FrozenTrial] = []
    for now_s, beat in looks:
        found = watch.dead(beating(beat), now_s)
    assert [trial.number for trial in found] == ([0] if is_dead else [])
