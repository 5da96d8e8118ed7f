"""What a study's trials add up to: which count, which are owed another attempt, which failed in a row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

FIRST, ATTEMPT = 'retry_of', 'attempt'  # attributes of a trial that repeats another: its first number, the count
HEARTBEAT, OUTCOME = 'heartbeat', 'outcome'
DIED, INTERRUPTED = 'died', 'interrupted'  # how a trial can be lost, in its outcome


@dataclass(frozen=True)
class Tally:
    """How far a study is.

    A trial that was lost and tried again is one trial, in the state of its latest attempt.

    Attributes:
        latest: The latest attempt of each trial, by the number of the first.
        owed: Lost attempts that are to be repeated.
    """

    latest: dict[int, FrozenTrial]
    owed: list[FrozenTrial]

    def count(self, *states: TrialState) -> int:
        """Return how many trials are in one of ``states``, those owed another attempt left out."""
        owed = {trial.number for trial in self.owed}
        return sum(trial.state in states and trial.number not in owed for trial in self.latest.values())

    @property
    def settled(self) -> int:
        """How many trials are over."""
        return self.count(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def tally(trials: Sequence[FrozenTrial], max_retries: int) -> Tally:
    """Add up the trials of a study.

    Args:
        trials: All of them, by number.
        max_retries: How often a trial that died is tried again; interruptions do not count.
    """
    latest = {trial.user_attrs.get(FIRST, trial.number): trial for trial in trials}
    return Tally(latest, [trial for trial in latest.values() if _is_owed(trial, max_retries)])


def _is_owed(trial: FrozenTrial, max_retries: int) -> bool:
    lost = trial.user_attrs.get(OUTCOME, {}).get('lost') if trial.state == TrialState.FAIL else None
    return lost == INTERRUPTED or (lost == DIED and trial.user_attrs.get(ATTEMPT, 0) < max_retries)


def next_attempt(trial: FrozenTrial) -> dict[str, int]:
    """Return the attributes of the trial that repeats ``trial``."""
    died = trial.user_attrs[OUTCOME]['lost'] == DIED
    return {FIRST: trial.user_attrs.get(FIRST, trial.number), ATTEMPT: trial.user_attrs.get(ATTEMPT, 0) + died}


def failures(tally: Tally) -> set[int]:
    """Return the numbers of the attempts that failed for good."""
    owed = {trial.number for trial in tally.owed}
    return {t.number for t in tally.latest.values() if t.state == TrialState.FAIL and t.number not in owed}


def failures_in_a_row(tally: Tally, forgiven: Collection[int]) -> list[FrozenTrial]:
    """Return the unbroken run of failures at the end of the study, in the order they ended.

    Args:
        tally: The study.
        forgiven: Numbers of failures to leave out: those from before the command was started again.
    """
    failed = failures(tally)
    over = [
        t for t in tally.latest.values() if t.number in failed or t.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    over.sort(key=lambda trial: trial.datetime_complete or datetime.min)
    run: list[FrozenTrial] = []
    for trial in reversed(over):
        if trial.state != TrialState.FAIL or trial.number in forgiven:
            break
        run.insert(0, trial)
    return run


class Watch:
    """Finds the running trials whose worker gives no sign of life.

    No clock is compared with another machine's: a trial is dead when its heartbeat has not changed for ``grace_s``
    seconds that this process watched without interruption. While the storage is away nobody's heartbeat changes, so
    an interruption starts the waiting anew.

    Args:
        grace_s: Seconds of silence.
        gap_s: Seconds between two looks that count as an interruption.
    """

    def __init__(self, grace_s: float, gap_s: float) -> None:
        self.grace_s = grace_s
        self.gap_s = gap_s
        self._looked_at_s = float('-inf')
        self._seen: dict[int, tuple[object, float]] = {}

    def dead(self, trials: Sequence[FrozenTrial], now_s: float) -> list[FrozenTrial]:
        """Look at the trials of the study, and return the dead ones.

        Args:
            trials: Trials in any state.
            now_s: This process's monotonic clock.
        """
        if now_s - self._looked_at_s > self.gap_s:
            self._seen.clear()
        self._looked_at_s = now_s
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        seen = {}
        for trial in running:
            beat = trial.user_attrs.get(HEARTBEAT)
            before = self._seen.get(trial.number)
            seen[trial.number] = before if before is not None and before[0] == beat else (beat, now_s)
        self._seen = seen
        return [trial for trial in running if now_s - seen[trial.number][1] > self.grace_s]
