"""What a sweep leaves behind: the best config, a table of the trials, a page."""

from __future__ import annotations

import csv
import html
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from armbench_mmdet.sweep.overrides import BASE, write_overrides, write_text
from armbench_mmdet.sweep.space import Space
from armbench_mmdet.sweep.study import FIRST, HEARTBEAT, OUTCOME, Tally, best_trial, tally
from armbench_mmdet.sweep.trial import trial_folder

_COLUMNS = ('number', 'state', 'value', 'duration_s', 'validations', 'retry_of', 'reason', 'error', 'worker', 'folder')
_STYLE = (
    'body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}'
    'table{border-collapse:collapse;font-size:13px}td,th{padding:.2em .7em;border-bottom:1px solid #ddd}'
    'td,th{text-align:left;font-variant-numeric:tabular-nums}'
)


def write_best(folder: Path, count: Tally, space: Space) -> None:
    """Write ``best.py``, the config of the best complete trial so far, if there is one and it is another than before.

    It is computed from the parameters in the storage, so that it does not matter which machine ran the trial.
    """
    best = best_trial(count, space.direction)
    if best is None:
        return
    note = f'trial {best.number}, the best so far: {space.objective} {best.value:.6f}'
    path = folder / 'best.py'
    if not path.is_file() or path.read_text(encoding='utf-8').splitlines()[0] != f'# {note}':
        config = space.config(FixedTrial(best.params, best.number))
        write_overrides(path, BASE, space.base_config, config, note)


def write_table(folder: Path, trials: Sequence[FrozenTrial], space: Space) -> None:
    """Write ``trials.csv``: a row for each attempt of each trial."""
    names = sorted({name for trial in trials for name in trial.params})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([*_COLUMNS, *names])
    for trial in trials:
        writer.writerow([*_row(trial).values(), *(trial.params.get(name, '') for name in names)])
    write_text(folder / 'trials.csv', text.getvalue())


def _row(trial: FrozenTrial) -> dict[str, Any]:
    outcome = trial.user_attrs.get(OUTCOME, {})
    value = trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None
    return {
        'number': trial.number,
        'state': trial.state.name.lower(),
        'value': '' if value is None else value,
        'duration_s': f'{trial.duration.total_seconds():.1f}' if trial.duration else '',
        'validations': len(trial.intermediate_values),
        'retry_of': trial.user_attrs.get(FIRST, ''),
        'reason': outcome.get('reason', ''),
        'error': outcome.get('error', ''),
        'worker': trial.user_attrs.get(HEARTBEAT, [''])[0],
        'folder': trial_folder(Path(), trial.number),
    }


def importances(study: optuna.Study) -> dict[str, float]:
    """Return how much each parameter matters (PED-ANOVA, Watanabe et al. 2023), the largest first.

    They add up to 1; there are none before two trials are complete.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 2:
        return {}
    return optuna.importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())


def write_report(folder: Path, study: optuna.Study, space: Space) -> None:
    """Write ``importances.json`` and ``report.html``, which needs no other file and no network."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Optuna's about few trials: the page shows how many there are
        write_text(folder / 'importances.json', json.dumps(importances(study), indent=2) + '\n')
        write_text(folder / 'report.html', ''.join(_page(study, space)))


def _page(study: optuna.Study, space: Space) -> Iterator[str]:
    """Yield the parts of the page."""
    trials = study.get_trials(deepcopy=False)
    count = tally(trials, space.max_retries)
    title = html.escape(f'Sweep {study.study_name}')
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    yield f'<h1>{title}</h1><p>{html.escape(_summary(count, space))}</p>'
    for index, (heading, figure) in enumerate(_figures(study, space)):
        yield f'<h2>{html.escape(heading)}</h2>'
        yield figure.to_html(full_html=False, include_plotlyjs=index == 0, config={'displaylogo': False})
    yield '<h2>Trials</h2>' + _table(trials) + '</html>'


def _figures(study: optuna.Study, space: Space) -> Iterator[tuple[str, Any]]:
    from optuna import visualization as plots

    if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        name = space.objective
        yield 'Optimisation history', plots.plot_optimization_history(study, target_name=name)
        yield 'Validations of each trial', plots.plot_intermediate_values(study)
        if importances(study):
            evaluator = PedAnovaImportanceEvaluator()
            yield 'Importance of each parameter', plots.plot_param_importances(study, evaluator, target_name=name)
        yield 'Slice', plots.plot_slice(study, target_name=name)
        yield 'Parallel coordinates', plots.plot_parallel_coordinate(study, target_name=name)


def _summary(count: Tally, space: Space) -> str:
    best = best_trial(count, space.direction)
    parts = (
        f'{count.count(TrialState.COMPLETE)} trials complete, {count.count(TrialState.PRUNED)} pruned, '
        f'{count.count(TrialState.FAIL)} failed. Base config: {space.base.as_posix()}.'
    )
    return parts if best is None else f'{parts} Best {space.objective}: {best.value:.4f}, trial {best.number}.'


def _table(trials: Sequence[FrozenTrial]) -> str:
    names = sorted({name for trial in trials for name in trial.params})
    head = ''.join(f'<th>{html.escape(name)}' for name in ('trial', 'state', 'value', 'reason', *names))
    rows = []
    for trial in trials:
        row = _row(trial)
        cells = [row['number'], row['state'], row['value'], row['reason'], *(trial.params.get(n, '') for n in names)]
        rows.append('<tr>' + ''.join(f'<td>{html.escape(_short(cell))}' for cell in cells))
    return f'<table><tr>{head}{"".join(rows)}</table>'


def _short(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)
