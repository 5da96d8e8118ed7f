"""The study: its trials, which count, which are tried again."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.overrides import differing
from armbench_mmdet.sweep.space import Space
from armbench_mmdet.sweep.storage import CLAIMS, Storage

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


FAILURES_IN_A_ROW = 10
_SPACE = 'search space'


@dataclass(frozen=True)
class Claim:
    """The answer to a worker that wants a trial.

    Attributes:
        trial: The trial, now running and the worker's; None if there is none to give just now.
        is_over: Whether there will be none.
    """

    trial: optuna.Trial | None
    is_over: bool


class SharedStudy:
    """A study whose trials are given out one at a time, exactly once each.

    Args:
        storage: Where it is kept.
        name: Its name.
        space: Its search space.

    Raises:
        InputError: There is a study of that name with another search space.
    """

    def __init__(self, storage: Storage, name: str, space: Space) -> None:
        self.storage = storage
        self.space = space
        self._is_idle = False
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns of an absent storage by the page
        self.study = optuna.create_study(
            storage=storage.optuna,
            study_name=name,
            direction=space.direction,
            sampler=space.sampler(0),
            pruner=space.pruner(),
            load_if_exists=True,
        )
        self._check_space()

    def _check_space(self) -> None:
        """Keep the search space with a new study; compare it with an older one's."""
        ours = _as_json({'space': self.space.description, 'base': self.space.base_config})
        if _SPACE not in self.study.user_attrs and not self.trials():
            self.study.set_user_attr(CLAIMS, 'the row of this attribute is locked while trials are claimed')
            self.study.set_user_attr(_SPACE, ours)  # all in one, and last: another process may look at any moment
        lines = list(differing(self.study.user_attrs.get(_SPACE, {}), ours))
        if lines:
            raise InputError(
                f'study {self.study.study_name!r} must have this search space, got another '
                f'(in {self.space.file}; there → here):\n  ' + '\n  '.join(lines[:20]) + '\nchoose another --study'
            )

    def trials(self) -> list[FrozenTrial]:
        """Return all trials, every attempt included."""
        return self.study.get_trials(deepcopy=False)

    def tally(self) -> Tally:
        """Return how far the study is."""
        return tally(self.trials(), self.space.max_retries)

    def claim(self, n_trials: int, forgiven: Collection[int]) -> Claim:
        """Take the next trial: a lost one again, else a new one while there are fewer than ``n_trials``.

        Args:
            n_trials: How many trials the study is to have.
            forgiven: Numbers of failures from before the command was started.
        """
        if self._is_idle:  # a look without the lock, while others still work on the last trials
            claim = self._outlook(self.tally(), n_trials, forgiven)
            if claim is not None:
                return claim
        with self.storage.claiming(self.study._study_id):
            count = self.tally()
            for lost in count.owed:
                self.study.enqueue_trial(lost.params, user_attrs=next_attempt(lost))
            if count.owed:
                count = self.tally()
            claim = self._outlook(count, n_trials, forgiven)
            self._is_idle = claim is not None
            if claim is not None:
                return claim
            trial = self.study.ask()
        # Sampling needs no lock; the stream is the trial's own.
        self.study.sampler = self.space.sampler(trial.number)
        return Claim(trial, is_over=False)

    def _outlook(self, count: Tally, n_trials: int, forgiven: Collection[int]) -> Claim | None:
        """The answer where no trial can be taken; None where one can."""
        if count.settled >= n_trials or len(failures_in_a_row(count, forgiven)) >= FAILURES_IN_A_ROW:
            return Claim(None, is_over=True)
        if count.owed or count.count(TrialState.WAITING) or len(count.latest) < n_trials:
            return None
        return Claim(None, is_over=not count.count(TrialState.RUNNING))

    def beat(self, trial: optuna.Trial, worker: str, count: int) -> None:
        """Give a sign of life.

        Raises:
            UpdateFinishedTrialError: Somebody took the worker for dead, and the trial is no longer its own.
        """
        trial.set_user_attr(HEARTBEAT, [worker, count])

    def settle(self, trial: optuna.Trial | FrozenTrial, state: TrialState, value: float | None, outcome: Any) -> bool:
        """End a running trial; what has ended stays as it is.

        Args:
            trial: The trial.
            state: How it ended.
            value: The objective, for a complete trial.
            outcome: What to keep about it: reason, error, exit status, whether it was lost.

        Returns:
            Whether the trial was still running.
        """
        with self.storage.claiming(self.study._study_id):
            try:
                self.storage.optuna.set_trial_user_attr(trial._trial_id, OUTCOME, outcome)
            except UpdateFinishedTrialError:
                return False
            self.study.tell(trial.number, value, state=state, skip_if_finished=True)
        return True


def _as_json(value: Any) -> Any:
    """Nested values as JSON gives them back: tuples are lists."""
    return json.loads(json.dumps(value, default=repr))


def best_trial(count: Tally, direction: str) -> FrozenTrial | None:
    """Return the best complete trial, the first of equals; None before there is one."""
    done = [trial for trial in count.latest.values() if trial.state == TrialState.COMPLETE]
    sign = 1 if direction == 'maximize' else -1
    return max(done, key=lambda trial: (sign * float(trial.value or 0.0), -trial.number), default=None)


def progress_line(count: Tally, n_trials: int, space: Space) -> str:
    """Say how many trials are done, pruned, failed and running, the best so far, and about how long it will take."""
    best = best_trial(count, space.direction)
    running = count.count(TrialState.RUNNING)
    parts = [
        f'{count.settled}/{n_trials} trials over',
        f'{count.count(TrialState.COMPLETE)} done',
        f'{count.count(TrialState.PRUNED)} pruned',
        f'{count.count(TrialState.FAIL)} failed',
        f'{running} running',
    ]
    if best is not None:
        parts.append(f'best {space.objective} {best.value:.4f} (trial {best.number})')
    lasted = [t.duration.total_seconds() for t in count.latest.values() if t.state.is_finished() and t.duration]
    if lasted and count.settled < n_trials:
        left_s = (n_trials - count.settled) * sum(lasted) / len(lasted) / max(1, running)
        parts.append(f'about {_duration(left_s)} left')
    return ' · '.join(parts)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f'{seconds:.0f} s'
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60} min'
