"""Sweeps over stand-ins: what becomes of trials, and of everything that can die; the training of a trial."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState
from sweeps import STAND_IN, Postgres, SweepUnderTest, wait_until

from armbench_mmdet.configs import load_config
from armbench_mmdet.engine.checkpoints import write_checkpoint
from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.space import load_space
from armbench_mmdet.sweep.study import Progress, open_storage, open_study
from armbench_mmdet.sweep.training import VARIABLE, SweepReportHook, Training, training_command
from armbench_mmdet.sweep.workers import training_environment
from armbench_mmdet.system import usable_cores


@pytest.fixture(scope='session')
def postgres() -> Iterator[Postgres]:
    """The server; its absence is an error where ``ARMBENCH_REQUIRE_POSTGRES`` is set, as in CI."""
    folders = [os.environ['PATH'], *map(str, Path('/usr/lib/postgresql').glob('*/bin'))]
    found = shutil.which('initdb', path=os.pathsep.join(folders))
    if not found:
        message = 'no PostgreSQL: install the package postgresql'
        pytest.fail(message) if os.environ.get('ARMBENCH_REQUIRE_POSTGRES') else pytest.skip(message)
    server = Postgres(Path(found).parent)
    yield server
    server.stop()
    shutil.rmtree(server.folder)


@pytest.fixture
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SweepUnderTest]:
    """A sweep on a journal file, or on PostgreSQL where the test says so."""
    on_postgres = getattr(request, 'param', 'journal') == 'postgres'
    where = request.getfixturevalue('postgres').database() if on_postgres else str(tmp_path / 'storage/journal.log')
    one = SweepUnderTest(tmp_path, where)
    yield one
    one.kill()


on_any_storage = pytest.mark.parametrize('sweep', ['journal', 'postgres'], indirect=True)
on_postgres = pytest.mark.parametrize('sweep', ['postgres'], indirect=True)


@pytest.mark.parametrize(
    ('behaviour', 'reason', 'error', 'attempts'),
    [
        ('nan', 'nan', 'It was nan.', 1),
        ('lost process', 'lost process', 'It was lost process.', 3),  # tried again, but not for ever
        ('metric', 'nan', 'score was nan', 1),
        ('crash', 'crash', 'ValueError: the stand-in crashes', 1),
        ('silent', 'no validation', '', 1),
    ],
)
def test_why_a_trial_failed(behaviour: str, reason: str, error: str, attempts: int, sweep: SweepUnderTest) -> None:
    sweep.configure(n_trials=1, behaviour=behaviour)
    assert sweep.run()
    sweep.check(fail=attempts)
    assert [(row['reason'], row['error']) for row in sweep.rows()] == [(reason, error)] * attempts
    assert sweep.retried() == list(range(attempts - 1))


@on_any_storage
def test_what_comes_out(sweep: SweepUnderTest) -> None:
    sweep.configure(n_trials=5)
    assert sweep.run()
    sweep.check(complete=5)
    best, folder = sweep.study().best_trial, sweep.work_dir
    expected = load_config(folder / 'base.py').to_dict()
    expected['model']['x'], expected['train_cfg']['max_iters'] = best.params.values()
    trial = folder / f'trial_{best.number:04d}'
    for path in (folder / 'best.py', trial / 'config.py'):
        assert load_config(path).to_dict() == expected
    assert f'trial {best.number}, the best so far: score {best.value:.6f}' in (folder / 'best.py').read_text()
    assert (trial / 'train.log').read_text().startswith(f'threads {os.environ["OMP_NUM_THREADS"]} GPUs')
    rows = sweep.rows()
    assert [(row['state'], row['validations']) for row in rows] == [('complete', '3')] * 5
    assert float(rows[best.number]['model.x']) == best.params['model.x']
    page = (folder / 'report.html').read_text()
    for title in ('Optimization History', 'Hyperparameter Importances', 'Slice', 'Parallel Coordinate'):
        assert title in page
    assert page.count('class="plotly-graph-div"') == 5
    assert '<script src=' not in page
    assert '<link' not in page


def test_pareto_front_of_several_objectives(sweep: SweepUnderTest) -> None:
    known = [{'model.x': 0.1}, {'model.x': 0.3}, {'model.x': 0.9}]  # score = .02 - |x - .3| and cost = x²
    sweep.configure(n_trials=3, objective=['score', 'cost'], direction=['maximize', 'minimize'], enqueue=known)
    assert sweep.run()
    assert [row['best'] for row in sweep.rows()] == ['yes', 'yes', '']
    assert [float(row['cost']) for row in sweep.rows()] == pytest.approx([0.01, 0.09, 0.81])
    assert not (sweep.work_dir / 'best.py').exists()
    page = (sweep.work_dir / 'report.html').read_text()
    assert 'Pareto-front Plot' in page
    assert page.count('Slice Plot') == 2


def test_known_settings_are_tried_first_and_the_best_trial_keeps_the_constraint(sweep: SweepUnderTest) -> None:
    known = [{'model.x': 0.1, 'train_cfg.max_iters': 2}, {'model.x': 0.3}, {'model.x': 0.05}]
    sweep.configure(n_trials=4, constraints={'cost': 0.02}, enqueue=known)  # x below .15
    assert sweep.run()
    rows = sweep.rows()
    tried = [float(row['model.x']) for row in rows]
    assert tried[:3] == [0.1, 0.3, 0.05]
    assert tried[3] not in tried[:3]
    assert rows[0]['train_cfg.max_iters'] == '2'
    assert [row['best'] for row in rows] == ['yes', '', '', '']
    assert [float(row['cost']) for row in rows] == pytest.approx([x**2 for x in tried])


def test_best_trial_is_trained_at_full_length(sweep: SweepUnderTest) -> None:
    sweep.configure(n_trials=2, steps=5)
    with pytest.raises(InputError, match='got None: none is complete yet'):
        sweep.make().retrain(None)
    assert sweep.run()
    sweep.finish(sweep.start(lambda: sweep.make().retrain(None)), status=1)  # the stand-in wants the folder of a trial
    best = sweep.study().best_trial
    config = load_config(sweep.work_dir / f'retrained_{best.number:04d}/config.py')
    assert config['model'] == {'behaviour': 'good', 'x': best.params['model.x'], 'steps': 3, 'step_s': 0.0}
    with pytest.raises(InputError, match="must be a complete one of study 'study', got 7: "):
        sweep.make().retrain(7)


HALVING = {'type': 'SuccessiveHalvingPruner', 'min_resource': 1, 'reduction_factor': 3}
HYPERBAND = {'type': 'HyperbandPruner', 'min_resource': 1, 'max_resource': 6, 'reduction_factor': 3}
TPE = {'type': 'TPESampler', 'multivariate': True, 'group': True, 'constant_liar': True, 'n_startup_trials': 2}
GAUSSIAN_PROCESS = {'type': 'GPSampler', 'n_startup_trials': 2}


@pytest.mark.parametrize(('sampler', 'pruner'), [(TPE, HALVING), (GAUSSIAN_PROCESS, HYPERBAND)])
def test_samplers_and_pruners(sampler: dict, pruner: dict, sweep: SweepUnderTest) -> None:
    sweep.configure(n_trials=8, sampler=sampler, pruner=pruner, steps=6, step_s=0.1)
    assert sweep.run()
    trials = sweep.trials()
    assert len(trials) == 8
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({trial.params['model.x'] for trial in trials}) > 3
    pruned = [sweep.work_dir / f'trial_{one.number:04d}' for one in trials if one.state == TrialState.PRUNED]
    assert any('finished' not in (folder / 'train.log').read_text() for folder in pruned)


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
        assert '0 complete' in (sweep.work_dir / 'report.html').read_text()


@pytest.mark.parametrize(
    ('name', 'old', 'new', 'message'),
    [
        ('space.py', "'high': 1.0", "'high': 2.0", r"'study' must have this search .*\n.*model\.x\.high: 1\.0 → 2\.0"),
        ('base_config.py', 'x=0.5', 'x=0.6', r'base\.model\.x: 0\.5 → 0\.6'),
        ('space.py', 'n_trials = 6', 'n_trials = 60', ''),  # more trials are no other space
    ],
)
def test_another_search_space_is_refused(name: str, old: str, new: str, message: str, sweep: SweepUnderTest) -> None:
    sweep.study()
    text = (sweep.folder / name).read_text()
    assert old in text
    (sweep.folder / name).write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message) if message else nullcontext():
        sweep.study()


def test_study_of_an_earlier_version_is_refused(sweep: SweepUnderTest) -> None:
    (sweep.work_dir / 'trial_0000').mkdir(parents=True)
    with pytest.raises(InputError, match=r'without trials of another, got .*trial_0000; choose another --study'):
        sweep.make()
    storage = open_storage(sweep.where, threading.Event())
    optuna.create_study(storage=storage, study_name='old').ask()
    with pytest.raises(InputError, match="study 'old' must have this search space"):
        open_study(storage, 'old', load_space(sweep.folder / 'space.py'))


@pytest.mark.parametrize(
    ('where', 'message'),
    [
        ('postgresql://me:secret@127.0.0.1:1/study', r"can be reached, got '127.0.0.1:1/study': .*refused"),
        ('mysql+nothing://me:secret@127.0.0.1/study', "can be reached, got '127.0.0.1/study'"),
        ('oracle://host/study', "can be reached, got 'oracle://host/study': .* install"),
        ('{tmp}/notes.txt/journal.log', 'journal file of Optuna.*exists'),
        ('{tmp}/notes.txt', 'journal file of Optuna, or .*notes.txt'),
    ],
)
def test_storage_that_is_not_there_is_a_clear_error(where: str, message: str, tmp_path: Path) -> None:
    (tmp_path / 'notes.txt').write_text('Notes\nMore\n')
    with pytest.raises(InputError, match=message) as caught:
        open_storage(where.format(tmp=tmp_path), threading.Event())
    assert 'secret' not in str(caught.value)


@on_any_storage
def test_killed_training_is_tried_again(sweep: SweepUnderTest) -> None:
    sweep.configure(n_trials=2, behaviour='hang')
    command = sweep.start()
    os.kill(sweep.wait_for_trainings(2)[0], signal.SIGKILL)
    wait_until(lambda: len(sweep.trials()) > 2)
    sweep.go()
    sweep.finish(command)
    sweep.check(complete=2, fail=1)
    assert len(sweep.retried()) == 1
    assert 'killed' in [row['reason'] for row in sweep.rows()]


@on_any_storage
@pytest.mark.parametrize(
    ('number', 'status', 'heartbeat_s', 'left', 'reason'),
    [
        (signal.SIGTERM, 130, 10, {'fail': 2, 'waiting': 2}, 'interrupted'),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, 1, {'running': 2}, 'stale', marks=pytest.mark.slow),
    ],
    ids=['interrupted', 'killed'],
)
def test_command_that_ends_early_leaves_nothing_running_and_its_trials_are_tried_again(
    number: int, status: int, heartbeat_s: int, left: dict[str, int], reason: str, sweep: SweepUnderTest
) -> None:
    sweep.configure(n_trials=3, heartbeat_s=heartbeat_s, behaviour='hang')
    command = sweep.start()
    sweep.wait_for_trainings(2)
    os.kill(command.pid, number)
    sweep.finish(command, status)
    sweep.wait_for_trainings(0)
    sweep.check(**left)
    sweep.go()
    sweep.finish(sweep.start())
    sweep.check(fail=2, complete=3)
    assert sweep.retried() == [0, 1]
    assert [row['reason'] for row in sweep.rows()][:2] == [reason, reason]


@pytest.mark.parametrize('ending', ['time', pytest.param('pre-emption', marks=pytest.mark.slow)])
def test_slurm_task_is_started_anew_and_finishes(ending: str, sweep: SweepUnderTest) -> None:
    """A stand-in for sbatch: it runs tasks as processes, takes one down as SLURM does, and starts it again."""
    repo, tools, programs = Path(__file__).parents[2], sweep.folder / 'tools', sweep.folder / 'bin'
    for folder in (tools, programs):
        folder.mkdir()
    (tools / 'sweep.py').symlink_to(repo / 'tools/sweep.py')
    (tools / 'train.py').symlink_to(STAND_IN[1])
    for name, line in {'srun': 'exec "$@"', 'scontrol': f'echo "$@" >> {sweep.folder}/requeued'}.items():
        (programs / name).write_text(f'#!/bin/sh\n{line}\n')
        (programs / name).chmod(0o755)
    sweep.configure(n_trials=3, behaviour='hang')
    environment = {**os.environ, 'PATH': f'{programs}:{os.environ["PATH"]}', 'PYTHON': STAND_IN[0]}
    words = [repo / 'tools/slurm_sweep.sh', 'space.py', '--study', 'study', '--work-dir', sweep.work_dir]

    def start(task: int) -> subprocess.Popen[bytes]:
        ids = {'SLURM_JOB_ID': str(7 + task), 'SLURM_ARRAY_JOB_ID': '7', 'SLURM_ARRAY_TASK_ID': str(task)}
        return subprocess.Popen(['bash', *words, '--storage', sweep.where], cwd=sweep.folder, env=environment | ids)

    tasks = [start(0), start(1)]
    sweep.wait_for_trainings(2)
    if ending == 'time':
        tasks[0].send_signal(signal.SIGUSR1)  # to the script alone, as --signal=B: says
    else:
        children = Path(f'/proc/{tasks[0].pid}/task/{tasks[0].pid}/children').read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)  # to the step
    assert tasks[0].wait(120) == 130
    assert (sweep.folder / 'requeued').exists() is (ending == 'time')
    sweep.go()
    tasks[0] = start(0)
    assert [task.wait(120) for task in tasks] == [0, 0]
    sweep.check(complete=3, fail=1)
    assert len(sweep.retried()) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
@on_postgres
def test_sixteen_workers_and_five_hundred_trials(sweep: SweepUnderTest) -> None:
    sweep.configure(n_trials=500, steps=1)
    assert sweep.run(workers=16)
    sweep.check(complete=500)
    assert [trial.number for trial in sweep.trials()] == list(range(500))


@pytest.mark.slow
@on_any_storage
def test_two_commands_fill_one_study(sweep: SweepUnderTest) -> None:
    sweep.configure(n_trials=12, step_s=0.1)
    for command in [sweep.start(), sweep.start()]:
        sweep.finish(command)
    trials = sweep.trials(TrialState.COMPLETE)
    assert len({trial.params['model.x'] for trial in trials}) == len(sweep.rows()) == 12
    assert len({trial.user_attrs['worker'] for trial in trials}) == 2, 'both took part'


@pytest.mark.slow
@on_postgres
def test_database_that_goes_away_for_a_while(sweep: SweepUnderTest, postgres: Postgres) -> None:
    sweep.configure(n_trials=4, heartbeat_s=2, steps=4, step_s=0.3)
    command = sweep.start()
    wait_until(lambda: sweep.trials(TrialState.COMPLETE))
    postgres.stop()
    time.sleep(4)
    postgres.start()
    sweep.finish(command)
    # One that was begun while the connection broke is nobody's: it is reaped and tried again.
    progress = Progress(sweep.study())
    assert progress.count(TrialState.COMPLETE) == len(progress.latest) == 4
    assert not sweep.trainings()


def test_hook_reports_to_its_worker_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hook(**given: object) -> SweepReportHook:
        monkeypatch.setenv(VARIABLE, json.dumps(given))
        return SweepReportHook()

    runner = SimpleNamespace(iter=3, val_loop=SimpleNamespace(evaluator=SimpleNamespace(metrics=[])))
    alone = hook()  # of a dumped config, trained without a sweep
    alone.after_train_iter(runner, 0)
    alone.after_val_epoch(runner, {})
    watched = hook(folder=str(tmp_path), metrics=['score'], worker_pid=os.getpid())
    watched.after_train_iter(runner, 0)
    watched.after_val_epoch(runner, {'score': None, 'other': 1.0})
    assert (tmp_path / 'reports.jsonl').read_text() == '{"iteration": 3, "values": {"score": NaN}}\n'
    with pytest.raises(InputError, match=r"objective and constraints must be among .*, coco/bbox_mAP; got \['score'\]"):
        watched.after_val_epoch(runner, {'coco/bbox_mAP': 0.5})
    orphan = hook(folder=str(tmp_path), metrics=['score'], worker_pid=2**22 + 1)
    for step in (orphan.after_train_iter, orphan.after_val_iter):
        with pytest.raises(ProcessLookupError):
            step(runner, 0)


def test_attempt_goes_on_from_the_checkpoint_of_the_one_before(tmp_path: Path) -> None:
    before, folder = tmp_path / 'before', tmp_path / 'now'
    (before / 'run').mkdir(parents=True)
    folder.mkdir()
    (before / 'reports.jsonl').write_text('{"iteration": 5, "values": {"score": 0.5}}\n' * 2)
    for checkpoint in (None, 'interrupted.pth'):
        if checkpoint:
            write_checkpoint(before / 'run' / checkpoint, {})
        training = Training(folder, ['echo'], os.environ, ['score'], before)
        assert training.has_ended(30)
        words = (folder / 'train.log').read_text()
        assert (f'--resume {before}/run/interrupted.pth' in words) is bool(checkpoint)
        assert training.reports() == [{'score': 0.5}] * bool(checkpoint), 'a validation done twice counts once'


def test_several_gpus_make_a_distributed_training() -> None:
    words = training_command(['python', 'train.py'], Path('config.py'), Path('run'), '0,1')
    launcher = 'python -m torch.distributed.run --standalone --nproc-per-node 2'
    assert ' '.join(words) == f'{launcher} train.py config.py --work-dir run --launcher pytorch'


def test_trainings_share_the_cores_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'NUMBA_NUM_THREADS'):
        monkeypatch.delenv(name, raising=False)
    assert training_environment(1, None)['OMP_NUM_THREADS'] == str(usable_cores())
    shared = training_environment(usable_cores(), '0,1')
    assert shared['MKL_NUM_THREADS'] == shared['NUMBA_NUM_THREADS'] == '1'
    assert shared['CUDA_VISIBLE_DEVICES'] == '0,1'
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    assert training_environment(1, None)['OMP_NUM_THREADS'] == '7'
