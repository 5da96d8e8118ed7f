"""The files of a study: the configs of its trials and of the best one, a table, a page."""

import csv
import html
import io
import os
import pprint
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FixedTrial, TrialState
from tabulate import tabulate

from armbench_mmdet.errors import InputError
from armbench_mmdet.files import write_atomically
from armbench_mmdet.sweep.space import DELETE, Space
from armbench_mmdet.sweep.study import ERROR, REASON, SURPLUS, WORKER, Progress, attempts, failure
from armbench_mmdet.sweep.training import CONFIG

BASE = 'base.py'
_COMPLETE = (TrialState.COMPLETE,)
_STYLE = 'body { font: 15px sans-serif; margin: 2em } td, th { padding: .2em .7em; text-align: left }'


def difference(old: Any, new: Any) -> Any:
    """Return what mmengine merges into ``old`` to give ``new``: of dicts the changed entries, lists as a whole."""
    if not isinstance(new, Mapping):
        return new
    if not isinstance(old, Mapping) or old.keys() - new.keys():
        return {DELETE: True, **new}
    changed = [key for key in new if key not in old or old[key] != new[key]]
    return {key: difference(old[key], new[key]) if key in old else new[key] for key in changed}


def config_source(config: Mapping[str, Any]) -> str:
    """A config as Python; the standard library's formatter takes a hundredth of the time of mmengine's."""
    return ''.join(f'{key} = {pprint.pformat(value, width=116, sort_dicts=False)}\n' for key, value in config.items())


def write_base(folder: Path, source: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved base config of a study beside its trials.

    Trials build on this copy: they stay what they were when somebody edits the original, and the study's folder can
    be moved to another checkout or machine as a whole.
    """
    write_atomically(folder / BASE, f'# {source.as_posix()}, resolved\n{config_source(config)}')


def write_overrides(path: Path, folder: Path, space: Space, config: Mapping[str, Any], note: str) -> None:
    """Write a config of a study as what it overrides of the base config in the study's folder."""
    base = os.path.relpath(folder / BASE, path.parent)
    source = config_source(difference(space.base_config, config))
    write_atomically(path, f'# {note}\n_base_ = {base!r}\n\n{source}')


def write_full_length(folder: Path, study: optuna.Study, space: Space, number: int | None) -> Path:
    """Write ``retrained_0007/config.py`` of a trial, the best for None: its parameters, without what the sweep fixes.

    Raises:
        InputError: There is no such complete trial, or no single best one.
    """
    complete = {trial.number: trial for trial in study.get_trials(deepcopy=False, states=_COMPLETE)}
    if number is None and len(space.given.objectives) == 1:
        number = next((trial.number for trial in study.best_trials), None)
    if number is None or number not in complete:
        choice = ', '.join(map(str, complete)) or 'none is complete yet'
        raise InputError(f'--trial must be a complete one of study {study.study_name!r}, got {number}: {choice}')
    config = space.config(FixedTrial(complete[number].params, number), with_fixed=False)
    path = folder / f'retrained_{number:04d}' / CONFIG
    write_overrides(path, folder, space, config, f'trial {number} at full length')
    return path


def write_progress(folder: Path, study: optuna.Study, space: Space) -> None:
    """Write what there is so far: ``trials.csv``, a row for each attempt of each trial, and ``best.py``.

    ``best.py`` is the config of the best trial, computed from the parameters in the storage, so that it does not
    matter which machine ran the trial. Several objectives have only a front.
    """
    text = io.StringIO()
    rows = _rows(study, space)
    writer = csv.DictWriter(text, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / 'trials.csv', text.getvalue())
    best = study.best_trials
    if best and len(space.given.objectives) == 1:
        note = f'trial {best[0].number}, the best so far: {space.given.objectives[0]} {best[0].values[0]:.6f}'
        config = space.config(FixedTrial(best[0].params, best[0].number))
        write_overrides(folder / 'best.py', folder, space, config, note)


def write_report(folder: Path, study: optuna.Study, space: Space) -> None:
    """Write ``report.html``, which needs no other file and no network."""
    progress = Progress(study)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Optuna's about few trials: the page shows how many there are
        figures = list(_figures(study, space.given.objectives))
    title, base = html.escape(f'Sweep {study.study_name}'), html.escape(space.base.as_posix())
    parts = [
        f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>',
        f'<p>{progress.line(len(progress.latest))}. Base config: {base}.</p>',
        *(figure.to_html(full_html=False, include_plotlyjs=not index) for index, figure in enumerate(figures)),
        tabulate(_rows(study, space), headers='keys', tablefmt='html', floatfmt='.4g'),
    ]
    write_atomically(folder / 'report.html', '\n'.join(parts))


def _rows(study: optuna.Study, space: Space) -> list[dict[str, Any]]:
    trials = [trial for trial in study.get_trials(deepcopy=False) if SURPLUS not in trial.user_attrs]
    best = {trial.number for trial in study.best_trials}
    names = sorted({name for trial in trials for name in trial.params})
    limits, objectives = space.given.constraints, space.given.objectives
    columns = ['value'] if len(objectives) == 1 else objectives
    return [
        {
            'number': trial.number,
            'state': trial.state.name.lower(),
            **dict(zip(columns, trial.values or [None] * len(columns), strict=True)),
            **{name: trial.constraints[name] + limit if trial.constraints else '' for name, limit in limits.items()},
            'best': 'yes' if trial.number in best else '',
            'duration_s': f'{trial.duration.total_seconds():.1f}' if trial.duration else '',
            'validations': len(trial.intermediate_values),
            'retry_of': attempts(trial)[0] if len(attempts(trial)) > 1 else '',
            **dict(zip((REASON, ERROR), failure(trial), strict=True)),
            WORKER: trial.user_attrs.get(WORKER, ''),
            **{name: trial.params.get(name, '') for name in names},
        }
        for trial in trials
    ]


def _figures(study: optuna.Study, objectives: list[str]) -> Iterator[Any]:
    from optuna import visualization as plots

    count = len(study.get_trials(deepcopy=False, states=_COMPLETE))
    if not count:
        return
    several = len(objectives) > 1
    yield plots.plot_pareto_front(study, target_names=objectives) if several else plots.plot_intermediate_values(study)
    for index, name in enumerate(objectives):
        about: dict[str, Any] = {'target_name': name}
        if several:
            about['target'] = lambda trial, index=index: trial.values[index]
        yield plots.plot_optimization_history(study, **about)
        if count > 1:
            yield plots.plot_param_importances(study, PedAnovaImportanceEvaluator(), **about)
        yield plots.plot_slice(study, **about)
        yield plots.plot_parallel_coordinate(study, **about)
