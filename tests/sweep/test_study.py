"""Trials are given out exactly once; studies are resumed, and not mixed up. In this process, on both storages."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path

import optuna
import pytest
from mmengine.config import Config
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from sweeps import Sweep

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep import driver
from armbench_mmdet.sweep.outputs import importances, write_best, write_report, write_table
from armbench_mmdet.sweep.overrides import resolved, write_base
from armbench_mmdet.sweep.study import DIED, SharedStudy
from armbench_mmdet.sweep.worker import Worker


def lose(study, trial, lost: str = DIED) -> bool:
    return study.settle(trial, TrialState.FAIL, None, {'lost': lost, 'reason': lost})


def test_claims_add_up_whoever_makes_them(sweep: Sweep) -> None:
    sweep.configure(n_trials=3)
    first, second = sweep.study(), sweep.study()
    claims = [study.claim(3, ()) for study in (first, second, first)]
    trials = [claim.trial for claim in claims if claim.trial is not None]
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert second.claim(3, ()).trial is None
    assert not second.claim(3, ()).is_over, 'one of them may still be lost'
    sweep.study().space.config(trials[1])
    assert lose(second, trials[1])
    assert not lose(first, trials[1]), 'only once'
    again = second.claim(3, ()).trial
    assert again is not None
    assert again.user_attrs == {'retry_of': 1, 'attempt': 1}
    second.space.config(again)
    assert again.params == sweep.study().trials()[1].params
    for trial, value in ((trials[0], 0.1), (trials[2], 0.2), (again, 0.3)):
        assert first.settle(trial, TrialState.COMPLETE, value, {})
    assert first.claim(3, ()).is_over
    assert first.claim(4, ()).trial is not None, 'asking for more resumes the study'


def test_trials_are_claimed_under_a_lock(sweep: Sweep) -> None:
    mine, other = sweep.study(), sweep.study()
    with mine.storage.claiming(mine.study._study_id):
        thread = threading.Thread(target=other.claim, args=(1, ()), daemon=True)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert not mine.trials()
    thread.join()
    assert len(mine.trials()) == 1


def test_retries_are_limited(journal_sweep: Sweep) -> None:
    study = journal_sweep.study()
    for attempt in range(3):
        trial = study.claim(1, ()).trial
        assert trial is not None
        assert trial.user_attrs.get('attempt', 0) == attempt
        lose(study, trial)
    assert study.claim(1, ()).is_over


def test_trial_lost_before_it_had_parameters_is_tried_again(journal_sweep: Sweep) -> None:
    study = journal_sweep.study()
    trial = study.claim(1, ()).trial
    assert trial is not None
    lose(study, trial)
    again = study.claim(1, ()).trial
    assert again is not None
    assert set(study.space.config(again)['model']) == {'behaviour', 'x', 'steps', 'step_s'}


def test_sign_of_life_says_whether_the_trial_is_still_ours(sweep: Sweep) -> None:
    study = sweep.study()
    trial = study.claim(1, ()).trial
    assert trial is not None
    study.beat(trial, 'worker', 1)
    lose(study, trial)
    with pytest.raises(UpdateFinishedTrialError):
        study.beat(trial, 'worker', 2)


def test_worker_leaves_a_trial_that_was_taken_from_it(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep.configure(n_trials=1, behaviour='hang', heartbeat_s=0.1)
    other, take = sweep.study(), SharedStudy.beat

    def beat(self: SharedStudy, trial: optuna.Trial, worker: str, count: int) -> None:
        if count == 2 and trial.number == 0:
            lose(other, trial)
            sweep.go()
        take(self, trial, worker, count)

    monkeypatch.setattr(SharedStudy, 'beat', beat)
    run_here(sweep, 1)
    assert [trial.state.name for trial in sweep.study().trials()] == ['FAIL', 'COMPLETE']
    sweep.check()


def test_another_search_space_is_refused_with_the_difference(sweep: Sweep) -> None:
    sweep.study()
    text = (sweep.folder / 'space.py').read_text()
    (sweep.folder / 'space.py').write_text(text.replace('high=1.0', 'high=2.0'))
    with pytest.raises(InputError, match=r"'study' must have this search space.*\n.*model\.x'\]\.high: 1\.0 → 2\.0"):
        sweep.study()
    (sweep.folder / 'space.py').write_text(text.replace('n_trials = 6', 'n_trials = 60'))
    sweep.study()  # more trials are no other space
    (sweep.folder / 'base_config.py').write_text("model = dict(behaviour='good', x=0.5, steps=4, step_s=0.0)\n"
        'train_cfg = dict(max_iters=3)\n')  # fmt: skip
    with pytest.raises(InputError, match=r'base\.model\.steps: 3 → 4'):
        sweep.study()


def run_here(sweep: Sweep, count: int) -> None:
    """Run trials in this process, as a worker does."""
    here = sweep.driver(n_trials=count)
    Worker(here.task, None, [-1, 0]).work(here.study)


def test_pruned_training_is_told_to_stop(sweep: Sweep) -> None:
    sweep.configure(n_trials=1, steps=50, pruner="'ThresholdPruner', lower=-1e-9")
    run_here(sweep, 1)
    (trial,) = sweep.study().trials()
    assert trial.state == TrialState.PRUNED
    assert len(trial.intermediate_values) < 50
    assert (sweep.work_dir / 'trial_0000/train.log').read_text() == 'told to stop\n'


SEARCHES = {
    'ASHA': (
        "'TPESampler', multivariate=True, group=True, constant_liar=True, n_startup_trials=2",
        "'SuccessiveHalvingPruner', min_resource=1, reduction_factor=3",
    ),
    'Hyperband': (
        "'TPESampler', multivariate=True, group=True, constant_liar=True, n_startup_trials=2",
        "'HyperbandPruner', min_resource=1, max_resource=6, reduction_factor=3",
    ),
    'Gaussian process': ("'GPSampler', n_startup_trials=2", "'MedianPruner', n_startup_trials=1"),
}


@pytest.mark.parametrize(('sampler', 'pruner'), SEARCHES.values(), ids=SEARCHES)
def test_samplers_and_pruners(sampler: str, pruner: str, journal_sweep: Sweep) -> None:
    journal_sweep.configure(n_trials=8, sampler=sampler, pruner=pruner, steps=6)
    run_here(journal_sweep, 8)
    count = journal_sweep.check()
    assert count.count(TrialState.PRUNED) >= 1
    assert count.count(TrialState.COMPLETE) >= 1
    assert len({trial.params['model.x'] for trial in count.latest.values()}) > 3


def test_done_study_is_left_alone(journal_sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, said = journal_sweep, []
    monkeypatch.setattr(driver, 'print_log', lambda text, **_: said.append(text))
    sweep.configure(n_trials=3)
    run_here(sweep, 3)
    assert sweep.driver(n_trials=2).run()
    assert '3 trials are done, 2 were asked for: nothing to do' in said
    assert len(sweep.study().trials()) == 3
    assert (sweep.work_dir / 'best.py').is_file()


@pytest.mark.parametrize('name', ['', '../up', 'a/b', '.hidden'])
def test_study_name_must_be_a_folder_name(name: str, journal_sweep: Sweep) -> None:
    with pytest.raises(InputError, match='--study must be letters'):
        journal_sweep.driver(study=name)


def test_what_comes_out(journal_sweep: Sweep) -> None:
    sweep = journal_sweep
    sweep.configure(n_trials=7)
    run_here(sweep, 4)
    study, folder = sweep.study(), sweep.work_dir
    for outcome in ({'reason': 'crash', 'error': 'KeyError: <x>', 'lost': ''}, {'reason': 'died', 'lost': DIED}):
        trial = study.claim(7, ()).trial
        assert trial is not None
        study.space.config(trial)
        study.settle(trial, TrialState.FAIL, None, outcome)
    write_base(folder, study.space.base, study.space.base_config)
    write_best(folder, study.tally(), study.space)
    write_table(folder, study.trials(), study.space)
    write_report(folder, study.study, study.space)
    best = study.study.best_trial
    expected = study.space.base_config
    expected['model']['x'], expected['train_cfg']['max_iters'] = best.params.values()
    assert resolved(folder / 'best.py') == expected
    assert f'trial {best.number}, the best so far: score {best.value:.6f}' in (folder / 'best.py').read_text()
    assert Config.fromfile(folder / f'trial_{best.number:04d}/config.py').to_dict() == expected
    rows = list(csv.DictReader((folder / 'trials.csv').open()))
    assert [row['state'] for row in rows] == ['complete'] * 4 + ['fail'] * 2
    assert rows[4]['error'] == 'KeyError: <x>'
    assert float(rows[0]['model.x']) == study.trials()[0].params['model.x']
    weights = json.loads((folder / 'importances.json').read_text())
    assert weights == importances(study.study)
    assert set(weights) == {'model.x', 'train_cfg.max_iters'}
    check_page((folder / 'report.html').read_text())


def check_page(page: str) -> None:
    for heading in ('Optimisation history', 'Importance of each parameter', 'Slice', 'Parallel coordinates'):
        assert f'<h2>{heading}</h2>' in page
    assert page.count('class="plotly-graph-div"') == 5
    assert '<script src=' not in page
    assert '<link' not in page


def test_page_of_a_study_without_results(journal_sweep: Sweep) -> None:
    study = journal_sweep.study()
    write_best(journal_sweep.folder, study.tally(), study.space)
    write_report(journal_sweep.folder, study.study, study.space)
    assert not Path(journal_sweep.folder / 'best.py').exists()
    assert '0 trials complete' in (journal_sweep.folder / 'report.html').read_text()
