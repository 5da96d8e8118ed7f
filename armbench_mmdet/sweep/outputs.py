"""The output of a sweep: the best config, a table of the trials, a page."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from tabulate import tabulate

from armbench_mmdet.files import write_atomically
from armbench_mmdet.sweep.overrides import BASE, write_overrides
from armbench_mmdet.sweep.space import Space
from armbench_mmdet.sweep.study import ERROR, REASON, WORKER, Progress, attempts_before, attribute

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


def write_best(folder: Path, progress: Progress, space: Space) -> None:
    """Write ``best.py``, the config of the best complete trial so far, if there is one and it is another than before.

    It is computed from the parameters in the storage, so that it does not matter which machine ran the trial.
    """
    best = progress.best(space.given.direction)
    if best is None:
        return
    note = f'trial {best.number}, the best so far: {space.given.objective} {best.value:.6f}'
    path = folder / 'best.py'
    if not path.is_file() or path.read_text(encoding='utf-8').splitlines()[0] != f'# {note}':
        config = space.config(FixedTrial(best.params, best.number))
        write_overrides(path, BASE, space.base_config, config, note)


def write_table(folder: Path, trials: Sequence[FrozenTrial]) -> None:
    """Write ``trials.csv``: a row for each attempt of each trial."""
    text = io.StringIO()
    rows = _rows(trials)
    writer = csv.DictWriter(text, list(rows[0]) if rows else ['number'], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / 'trials.csv', text.getvalue())


def write_report(folder: Path, study: optuna.Study, space: Space) -> None:
    """Write ``importances.json`` and ``report.html``, which needs no other file and no network."""
    trials = study.get_trials(deepcopy=False)
    progress = Progress(trials)
    rows = [{name: value for name, value in row.items() if name not in _LONG} for row in _rows(trials)]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Optuna's about few trials: the page shows how many there are
        write_atomically(folder / 'importances.json', json.dumps(importances(study), indent=2) + '\n')
        page = jinja2.Environment(autoescape=True).from_string(_PAGE)
        text = page.render(
            name=study.study_name,
            line=progress.line(len(progress.latest), space),
            base=space.base.as_posix(),
            figures=list(_figures(study, space)),
            table=tabulate(rows, headers='keys', tablefmt='html', floatfmt='.4g'),
        )
    write_atomically(folder / 'report.html', text)


def _rows(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    names = sorted({name for trial in trials for name in trial.params})
    return [
        {
            'number': trial.number,
            'state': trial.state.name.lower(),
            'value': trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
            'duration_s': f'{trial.duration.total_seconds():.1f}' if trial.duration else '',
            'validations': len(trial.intermediate_values),
            'retry_of': next(iter(attempts_before(trial)), ''),
            **{name: attribute(trial, name) for name in (REASON, ERROR, WORKER)},
            'folder': f'trial_{trial.number:04d}',
            **{name: trial.params.get(name, '') for name in names},
        }
        for trial in trials
    ]


def importances(study: optuna.Study) -> dict[str, float]:
    """Return how much each parameter matters (PED-ANOVA, Watanabe et al. 2023), the largest first.

    They add up to 1; there are none before two trials are complete.
    """
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < 2:
        return {}
    return optuna.importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())


def _figures(study: optuna.Study, space: Space) -> Iterator[tuple[str, Any]]:
    from optuna import visualization as plots

    if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        name = space.given.objective
        yield 'Optimisation history', plots.plot_optimization_history(study, target_name=name)
        yield 'Validations of each trial', plots.plot_intermediate_values(study)
        if importances(study):
            evaluator = PedAnovaImportanceEvaluator()
            yield 'Importance of each parameter', plots.plot_param_importances(study, evaluator, target_name=name)
        yield 'Slice', plots.plot_slice(study, target_name=name)
        yield 'Parallel coordinates', plots.plot_parallel_coordinate(study, target_name=name)
