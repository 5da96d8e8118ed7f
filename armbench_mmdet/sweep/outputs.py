"""The output of a sweep: the best config, a table of the trials, a page."""

import csv
import io
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from tabulate import tabulate

from armbench_mmdet.errors import InputError
from armbench_mmdet.files import write_atomically
from armbench_mmdet.sweep.overrides import BASE, write_overrides
from armbench_mmdet.sweep.space import Space
from armbench_mmdet.sweep.study import (
    ERROR,
    REASON,
    SURPLUS,
    WORKER,
    Progress,
    attempts_before,
    attribute,
    best_trials,
)
from armbench_mmdet.sweep.training import CONFIG, trial_folder

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Sweep {{ name }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-size: 13px }
td, th { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: left; font-variant-numeric: tabular-nums }
</style>
<h1>Sweep {{ name }}</h1>
<p>{{ line }}. Base config: {{ base }}.</p>
{% for heading, figure in figures %}
<h2>{{ heading }}</h2>
{{ figure.to_html(full_html=False, include_plotlyjs=loop.first, config={'displaylogo': False}) | safe }}
{% endfor %}
<h2>Trials</h2>
{{ table | safe }}
</html>
"""


_LONG = ('duration_s', 'validations', 'retry_of', ERROR, WORKER, 'folder')  # columns that the page leaves out


def write_best(folder: Path, best: Sequence[FrozenTrial], space: Space) -> None:
    """Write ``best.py``, the config of the best trial so far, if there is one and it is another than before.

    It is computed from the parameters in the storage, so that it does not matter which machine ran the trial. By
    several objectives there is no best trial, but a front.
    """
    if not best or len(space.given.objectives) > 1:
        return
    note = f'trial {best[0].number}, the best so far: {space.given.objectives[0]} {best[0].values[0]:.6f}'
    path = folder / 'best.py'
    if not path.is_file() or path.read_text(encoding='utf-8').splitlines()[0] != f'# {note}':
        config = space.config(FixedTrial(best[0].params, best[0].number))
        write_overrides(path, BASE, space.base_config, config, note)


def write_full_length(folder: Path, study: optuna.Study, space: Space, number: int | None) -> Path:
    """Write the config of a trial at full length: the base config with its parameters, without what the sweep fixes.

    Args:
        folder: The study's folder.
        study: The study.
        space: Its search space.
        number: The trial; None for the best.

    Returns:
        ``retrained_0007/config.py`` in the folder.

    Raises:
        InputError: There is no such complete trial, or no single best one.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = best_trials(study)[: None if len(space.given.objectives) > 1 else 1]
    chosen = [trial for trial in (best if number is None else complete) if number in (None, trial.number)]
    if len(chosen) != 1:
        got = f'trial {number}' if number is not None else 'no --trial'
        choice = ', '.join(str(trial.number) for trial in best or complete) or 'none is complete yet'
        raise InputError(
            f'--retrain-best must have one complete trial of study {study.study_name!r}, got {got}: {choice}'
        )
    (trial,) = chosen
    config = space.config(FixedTrial(trial.params, trial.number), with_fixed=False)
    path = folder / f'retrained_{trial.number:04d}' / CONFIG
    path.parent.mkdir(exist_ok=True)
    write_overrides(path, f'../{BASE}', space.base_config, config, f'trial {trial.number} at full length')
    return path


def write_table(folder: Path, study: optuna.Study, space: Space) -> None:
    """Write ``trials.csv``: a row for each attempt of each trial."""
    text = io.StringIO()
    rows = _rows(study, space)
    writer = csv.DictWriter(text, list(rows[0]) if rows else ['number'], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / 'trials.csv', text.getvalue())


def write_report(folder: Path, study: optuna.Study, space: Space) -> None:
    """Write ``importances.json`` and ``report.html``, which needs no other file and no network."""
    progress, best = Progress(study.get_trials(deepcopy=False)), best_trials(study)
    rows = [{name: value for name, value in row.items() if name not in _LONG} for row in _rows(study, space)]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Optuna's about few trials: the page shows how many there are
        weights = {name: importances(study, index) for index, name in enumerate(space.given.objectives)}
        content = weights if len(weights) > 1 else next(iter(weights.values()))
        write_atomically(folder / 'importances.json', json.dumps(content, indent=2) + '\n')
        page = jinja2.Environment(autoescape=True).from_string(_PAGE)
        text = page.render(
            name=study.study_name,
            line=progress.line(len(progress.latest), best),
            base=space.base.as_posix(),
            figures=list(_figures(study, space)),
            table=tabulate(rows, headers='keys', tablefmt='html', floatfmt='.4g'),
        )
    write_atomically(folder / 'report.html', text)


def _rows(study: optuna.Study, space: Space) -> list[dict[str, Any]]:
    trials = [trial for trial in study.get_trials(deepcopy=False) if SURPLUS not in trial.user_attrs]
    best = {trial.number for trial in best_trials(study)}
    names = sorted({name for trial in trials for name in trial.params})
    given = space.given
    columns = ['value'] if len(given.objectives) == 1 else given.objectives
    return [
        {
            'number': trial.number,
            'state': trial.state.name.lower(),
            **dict(zip(columns, _values(trial, len(columns)), strict=True)),
            **{
                name: trial.constraints[name] + given.constraints[name]
                for name in given.constraints
                if trial.constraints
            },
            'best': 'yes' if trial.number in best else '',
            'duration_s': f'{trial.duration.total_seconds():.1f}' if trial.duration else '',
            'validations': len(trial.intermediate_values),
            'retry_of': next(iter(attempts_before(trial)), ''),
            **{name: attribute(trial, name) for name in (REASON, ERROR, WORKER)},
            'folder': trial_folder(Path(), trial.number).name,
            **{name: trial.params.get(name, '') for name in names},
        }
        for trial in trials
    ]


def _values(trial: FrozenTrial, count: int) -> Sequence[float | None]:
    """The objectives; for a pruned trial, the last validation's."""
    return (trial.values if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None) or [None] * count


def importances(study: optuna.Study, objective: int = 0) -> dict[str, float]:
    """Return how much each parameter matters for an objective (PED-ANOVA, Watanabe et al. 2023), the largest first.

    They add up to 1; there are none before two trials are complete.
    """
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < 2:
        return {}
    evaluator = PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(study, evaluator=evaluator, target=_target(study, objective))


def _target(study: optuna.Study, objective: int) -> Callable[[FrozenTrial], float] | None:
    return (lambda trial: trial.values[objective]) if len(study.directions) > 1 else None


def _figures(study: optuna.Study, space: Space) -> Iterator[tuple[str, Any]]:
    from optuna import visualization as plots

    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return
    names = space.given.objectives
    if len(names) > 1:
        yield 'Pareto front', plots.plot_pareto_front(study, target_names=names)
    else:
        yield 'Validations of each trial', plots.plot_intermediate_values(study)
    for index, name in enumerate(names):
        of = f' of {name}' if len(names) > 1 else ''
        about: dict[str, Any] = {'target': _target(study, index), 'target_name': name}
        yield f'Optimisation history{of}', plots.plot_optimization_history(study, **about)
        if importances(study, index):
            evaluator = PedAnovaImportanceEvaluator()
            yield f'Importance of each parameter{of}', plots.plot_param_importances(study, evaluator, **about)
        yield f'Slice{of}', plots.plot_slice(study, **about)
        yield f'Parallel coordinates{of}', plots.plot_parallel_coordinate(study, **about)
