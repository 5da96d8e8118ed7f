"""One line on how a sweep goes."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from armbench_mmdet.sweep.ledger import Tally
from armbench_mmdet.sweep.space import Space


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
