"""One study, shared by any number of processes on any number of machines."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.ledger import HEARTBEAT, OUTCOME, Tally, failures_in_a_row, next_attempt, tally
from armbench_mmdet.sweep.overrides import differing
from armbench_mmdet.sweep.space import Space
from armbench_mmdet.sweep.storage import CLAIMS, Storage

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
