"""Sweeps over stand-ins: what becomes of trials, and of everything that can die."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest
from mmengine.config import Config
from optuna.trial import TrialState
from sweeps import Postgres, SweepUnderTest, wait_until

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.outputs import write_best, write_report, write_table
from armbench_mmdet.sweep.overrides import resolved
from armbench_mmdet.sweep.space import load_space
from armbench_mmdet.sweep.study import Progress, open_storage
from armbench_mmdet.sweep.workers import thread_budget
from armbench_mmdet.system import usable_cores


def retried(sweep: SweepUnderTest) -> list[int]:
    """Numbers of the trials that were lost; each was tried again with the same parameters."""
    trials = sweep.trials()
    again = {
        trial.system_attrs['retry_history'][-1]: trial for trial in trials if 'retry_history' in trial.system_attrs
    }
    for number, trial in again.items():
        assert trial.params == trials[number].params
    return sorted(again)


def reasons(sweep: SweepUnderTest) -> list[str]:
    return [row['reason'] for row in csv.DictReader((sweep.work_dir / 'trials.csv').open())]


@pytest.mark.parametrize(
    ('behaviour', 'reason', 'error'),
    [
        ('nan', 'nan', 'It was nan.'),
        ('out of memory', 'out of memory', 'It was out of memory.'),
        ('metric', 'nan', 'the metric was nan'),
        ('crash', 'crash', 'ValueError: the stand-in crashes'),
        ('silent', 'no validation', 'it ended without one'),
    ],
)
def test_failed_trial_is_recorded_with_its_reason(
    behaviour: str, reason: str, error: str, sweep: SweepUnderTest
) -> None:
    sweep.configure(n_trials=1, behaviour=behaviour)
    assert sweep.run()
    sweep.check(fail=1)
    (row,) = csv.DictReader((sweep.work_dir / 'trials.csv').open())
    assert (row['reason'], row['error']) == (reason, error)


def test_lost_process_is_tried_again_but_not_for_ever(sweep: SweepUnderTest) -> None:
    sweep.configure(n_trials=1, behaviour='lost process')
    assert sweep.run(workers=1)
    sweep.check(fail=3)
    assert retried(sweep) == [0, 1]


def test_what_comes_out(any_sweep: SweepUnderTest) -> None:
    sweep = any_sweep
    sweep.configure(n_trials=5)
    assert sweep.run()
    sweep.check(complete=5)
    study, folder = sweep.study(), sweep.work_dir
    expected = resolved(folder / 'base.py')
    expected['model']['x'], expected['train_cfg']['max_iters'] = study.best_params.values()
    assert resolved(folder / 'best.py') == expected
    best = study.best_trial
    assert f'trial {best.number}, the best so far: score {best.value:.6f}' in (folder / 'best.py').read_text()
    trial = folder / f'trial_{best.number:04d}'
    assert Config.fromfile(trial / 'config.py').to_dict() == expected
    assert (trial / 'train.log').read_text().startswith(f'threads {os.environ["OMP_NUM_THREADS"]} GPUs')
    rows = list(csv.DictReader((folder / 'trials.csv').open()))
    assert [(row['state'], row['validations']) for row in rows] == [('complete', '3')] * 5
    assert float(rows[0]['model.x']) == study.trials[0].params['model.x']
    assert set(json.loads((folder / 'importances.json').read_text())) == {'model.x', 'train_cfg.max_iters'}
    page = (folder / 'report.html').read_text()
    for heading in ('Optimisation history', 'Importance of each parameter', 'Slice', 'Parallel coordinates'):
        assert f'<h2>{heading}</h2>' in page
    assert page.count('class="plotly-graph-div"') == 5
    assert '<script src=' not in page
    assert '<link' not in page


def test_page_of_a_study_without_results(sweep: SweepUnderTest) -> None:
    space = load_space(sweep.folder / 'space.py')
    write_best(sweep.folder, Progress([]), space)
    write_table(sweep.folder, [])
    write_report(sweep.folder, sweep.study(), space)
    assert not (sweep.folder / 'best.py').exists()
    assert '0 done' in (sweep.folder / 'report.html').read_text()


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
def test_samplers_and_pruners(sampler: str, pruner: str, sweep: SweepUnderTest) -> None:
    sweep.configure(n_trials=8, sampler=sampler, pruner=pruner, steps=6, step_s=0.1)
    assert sweep.run()
    trials = sweep.trials()
    assert len(trials) == 8
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({trial.params['model.x'] for trial in trials}) > 3
    pruned = next(trial for trial in trials if trial.state == TrialState.PRUNED)
    assert 'finished' not in (sweep.work_dir / f'trial_{pruned.number:04d}/train.log').read_text()


def test_the_same_command_resumes_and_draws_on(sweep: SweepUnderTest) -> None:
    assert sweep.run(n_trials=2)
    assert sweep.run(n_trials=5)
    assert sweep.run(n_trials=4), 'nothing to do'
    sweep.check(complete=5)
    assert len({trial.params['model.x'] for trial in sweep.trials()}) == 5


def test_ten_failures_in_a_row_end_the_study(sweep: SweepUnderTest) -> None:
    sweep.configure(n_trials=40, behaviour='out of memory')
    for total in (10, 20):  # resuming forgives the failures of before
        with pytest.raises(InputError, match=r'failed in a row.* by out of memory: It was.*train\.log'):
            sweep.run()
        assert total <= len(sweep.trials(TrialState.FAIL)) <= total + 2


def test_another_search_space_is_refused_with_the_difference(sweep: SweepUnderTest) -> None:
    sweep.study()
    text = (sweep.folder / 'space.py').read_text()
    (sweep.folder / 'space.py').write_text(text.replace('high=1.0', 'high=2.0'))
    with pytest.raises(InputError, match=r"'study' must have this search space.*\n.*model\.x\.high: 1\.0 → 2\.0"):
        sweep.study()
    (sweep.folder / 'space.py').write_text(text.replace('n_trials = 6', 'n_trials = 60'))
    sweep.study()  # more trials are no other space
    base = (sweep.folder / 'base_config.py').read_text()
    (sweep.folder / 'base_config.py').write_text(base.replace('steps=3', 'steps=4'))
    with pytest.raises(InputError, match=r'base\.model\.steps: 3 → 4'):
        sweep.study()


@pytest.mark.parametrize('name', ['', '../up', 'a/b', '.hidden'])
def test_study_name_must_be_a_folder_name(name: str, sweep: SweepUnderTest) -> None:
    with pytest.raises(InputError, match='--study must be letters'):
        sweep.run(study=name)


@pytest.mark.parametrize(
    ('where', 'message'),
    [
        ('postgresql://me:secret@127.0.0.1:1/study', r'must be reachable, got .*me:\*\*\*@127.*refused'),
        ('oracle://host/study', "must be PostgreSQL, MySQL or the path of a SQLite file, got 'oracle'"),
        ('://', 'must be a path or dialect'),
        ('{tmp}/journal.log/study.db', 'must be a file that can be written'),
        ('{tmp}/journal.log', 'must be a SQLite file, .* the journal of an earlier version is not read'),
        ('mysql+nothing://me@127.0.0.1/study', 'needs a driver'),
    ],
)
def test_storage_that_is_not_there_is_a_clear_error(where: str, message: str, sweep: SweepUnderTest) -> None:
    (sweep.folder / 'journal.log').write_text('{"op_code":0}\n')
    with pytest.raises(InputError, match=message) as caught:
        open_storage(where.format(tmp=sweep.folder), load_space(sweep.folder / 'space.py'))
    assert 'secret' not in str(caught.value)


def test_trainings_share_the_cores_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'NUMBA_NUM_THREADS', 'OMP_WAIT_POLICY'):
        monkeypatch.delenv(name, raising=False)
    assert thread_budget(1)['OMP_NUM_THREADS'] == str(usable_cores())
    alone = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'NUMBA_NUM_THREADS'), '1')
    assert thread_budget(usable_cores(), processes=2) == {**alone, 'OMP_WAIT_POLICY': 'PASSIVE'}
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    assert 'OMP_NUM_THREADS' not in thread_budget(1)


def test_killed_training_is_tried_again(any_sweep: SweepUnderTest) -> None:
    sweep = any_sweep
    sweep.configure(n_trials=2, behaviour='hang')
    command = sweep.start()
    os.kill(sweep.wait_for_trainings(2)[0], signal.SIGKILL)
    wait_until(lambda: len(sweep.trials()) > 2)
    sweep.go()
    sweep.finish(command)
    sweep.check(complete=2, fail=1)
    assert len(retried(sweep)) == 1
    assert 'killed' in reasons(sweep)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_sweep_gives_its_trials_back(number: signal.Signals, sweep: SweepUnderTest) -> None:
    sweep.configure(n_trials=3, behaviour='hang')
    command = sweep.start()
    sweep.wait_for_trainings(2)
    os.kill(command.pid, number)
    sweep.finish(command, status=130)
    sweep.check(fail=2, waiting=2)
    sweep.go()
    sweep.finish(sweep.start())
    sweep.check(fail=2, complete=3)
    assert retried(sweep) == [0, 1]


@pytest.mark.slow
def test_killed_command_leaves_nothing_running_and_its_trials_are_tried_again(any_sweep: SweepUnderTest) -> None:
    sweep = any_sweep
    sweep.configure(n_trials=3, heartbeat_s=1, behaviour='hang')
    command = sweep.start()
    sweep.wait_for_trainings(2)
    os.kill(command.pid, signal.SIGKILL)
    command.join()
    sweep.wait_for_trainings(0)
    sweep.check(running=2)
    sweep.go()
    sweep.finish(sweep.start())
    sweep.check(complete=3, fail=2)
    assert retried(sweep) == [0, 1]
    assert reasons(sweep)[:2] == ['stale', 'stale']


@pytest.mark.slow
def test_two_commands_fill_one_study(any_sweep: SweepUnderTest) -> None:
    sweep = any_sweep
    sweep.configure(n_trials=12, step_s=0.1)
    for command in [sweep.start(), sweep.start()]:
        sweep.finish(command)
    trials = sweep.trials()
    assert 12 <= len(trials) <= 15
    sweep.check(complete=len(trials))
    assert len({trial.params['model.x'] for trial in trials}) == len(trials)
    assert len({trial.user_attrs['worker'] for trial in trials}) == 2, 'both took part'


@pytest.mark.slow
def test_database_that_goes_away_for_a_while(postgres: Postgres, tmp_path: Path) -> None:
    sweep = SweepUnderTest(tmp_path, postgres.database())
    sweep.configure(n_trials=4, steps=4, step_s=0.3)
    command = sweep.start()
    wait_until(lambda: sweep.trials(TrialState.COMPLETE))
    postgres.stop()
    time.sleep(4)
    postgres.start()
    sweep.finish(command)
    sweep.check(complete=4)
