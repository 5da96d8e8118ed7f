"""Everything that can die, dies: real processes, on a journal file and on a real PostgreSQL.

After each: no trial lost, none counted twice, none left running.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sweeps import Postgres, Sweep, kill, stand_ins

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.study import ATTEMPT, FIRST, OUTCOME

pytestmark = pytest.mark.slow


def workers_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def wait_for_stand_ins(sweep: Sweep, count: int) -> list[int]:
    deadline = time.monotonic() + 60
    while len(found := stand_ins(sweep.work_dir)) != count:
        assert time.monotonic() < deadline, f'{len(found)} stand-ins, not {count}'
        time.sleep(0.05)
    return found


def retried(sweep: Sweep) -> dict[int, int]:
    """First number of each retried trial → attempts that count; the parameters are those of the first."""
    trials = sweep.study().trials()
    again = {trial.user_attrs[FIRST]: trial for trial in trials if FIRST in trial.user_attrs}
    for first, trial in again.items():
        assert trial.params == trials[first].params
    return {first: trial.user_attrs[ATTEMPT] for first, trial in again.items()}


def test_killed_training_is_tried_again(sweep: Sweep) -> None:
    sweep.configure(n_trials=3, behaviour='hang')
    driver = sweep.start()
    kill(wait_for_stand_ins(sweep, 2)[0])
    sweep.wait_until(lambda count: len(sweep.study().trials()) > 2)
    sweep.go()
    sweep.finish(driver)
    count = sweep.check()
    assert count.count(TrialState.COMPLETE) == 3
    assert list(retried(sweep).values()) == [1]
    lost = [trial for trial in sweep.study().trials() if trial.state == TrialState.FAIL]
    assert [trial.user_attrs[OUTCOME]['reason'] for trial in lost] == ['killed']


def test_killed_worker_is_replaced_and_its_trial_tried_again(sweep: Sweep) -> None:
    sweep.configure(n_trials=3, behaviour='hang')
    driver = sweep.start()
    before = wait_for_stand_ins(sweep, 2)
    kill(workers_of(driver.pid)[0])
    sweep.wait_until(lambda count: len(sweep.study().trials()) > 2)
    assert len(set(before) & set(wait_for_stand_ins(sweep, 2))) == 1, 'its training went on'
    assert len(workers_of(driver.pid)) == 2
    sweep.go()
    sweep.finish(driver)
    assert sweep.check().count(TrialState.COMPLETE) == 3
    assert list(retried(sweep).values()) == [1]


def test_killed_driver_takes_its_workers_along_and_the_command_resumes(sweep: Sweep) -> None:
    sweep.configure(n_trials=3, behaviour='hang')
    driver = sweep.start()
    wait_for_stand_ins(sweep, 2)
    kill(driver.pid)
    sweep.wait_until(lambda count: len(count.owed) == 2)
    wait_for_stand_ins(sweep, 0)
    sweep.go()
    sweep.finish(sweep.start())
    assert sweep.check().count(TrialState.COMPLETE) == 3
    assert list(retried(sweep).values()) == [0, 0], 'interruptions are not the trials’ fault'


def test_lost_machine_is_noticed_by_its_silence(sweep: Sweep) -> None:
    sweep.configure(n_trials=2, behaviour='hang')
    driver = sweep.start()
    wait_for_stand_ins(sweep, 2)
    for pid in [driver.pid, *workers_of(driver.pid)]:
        kill(pid)
    driver.join()
    wait_for_stand_ins(sweep, 0)  # each notices that its worker is gone
    assert sweep.study().tally().count(TrialState.RUNNING) == 2
    sweep.go()
    sweep.finish(sweep.start())
    assert sweep.check().count(TrialState.COMPLETE) == 2
    assert list(retried(sweep).values()) == [1, 1]


def test_interrupted_sweep_gives_its_trials_back(sweep: Sweep) -> None:
    sweep.configure(n_trials=2, behaviour='hang')
    driver = sweep.start()
    wait_for_stand_ins(sweep, 2)
    driver.terminate()
    driver.join(60)
    assert driver.exitcode == 130
    assert len(sweep.study().tally().owed) == 2
    sweep.go()
    sweep.finish(sweep.start())
    assert list(retried(sweep).values()) == [0, 0]
    sweep.check()


def test_two_drivers_fill_one_study(sweep: Sweep) -> None:
    sweep.configure(n_trials=12)
    for driver in [sweep.start(), sweep.start()]:
        sweep.finish(driver)
    sweep.check()
    trials = sweep.study().trials()
    assert len(trials) == 12, 'nothing was tried twice'
    assert len({trial.user_attrs['heartbeat'][0] for trial in trials}) > 2, 'both drivers took part'
    assert len({trial.params['model.x'] for trial in trials}) == 12


@pytest.mark.parametrize(('behaviour', 'reason'), [('crash', 'crash'), ('nan', 'NaN')])
def test_failing_trials_are_recorded_and_do_not_stop_the_study(sweep: Sweep, behaviour: str, reason: str) -> None:
    sweep.configure(n_trials=3, behaviour=behaviour)
    sweep.finish(sweep.start())
    count = sweep.check()
    assert [trial.user_attrs[OUTCOME]['reason'] for trial in count.latest.values()] == [reason] * 3
    assert not retried(sweep)


def test_ten_failures_in_a_row_stop_the_study(sweep: Sweep) -> None:
    sweep.configure(n_trials=30, behaviour='memory')
    with pytest.raises(InputError, match=r'10 times in a row.*out of memory.*20\.00 GiB.*train\.log'):
        sweep.driver().run()
    failed = sweep.study().tally().count(TrialState.FAIL)
    assert 10 <= failed <= 12
    with pytest.raises(InputError, match='10 times in a row'):  # resuming forgives the failures of before
        sweep.driver().run()
    assert sweep.study().tally().count(TrialState.FAIL) >= failed + 10


def test_storage_that_goes_away_for_ten_seconds(sweep: Sweep, request: pytest.FixtureRequest) -> None:
    sweep.configure(n_trials=6, steps=4, step_s=0.7)
    driver = sweep.start()
    sweep.wait_until(lambda count: count.settled >= 1)
    if sweep.where.startswith('postgresql'):
        server: Postgres = request.getfixturevalue('postgres')
        server.stop()
        time.sleep(10)
        server.start()
    else:
        folder = Path(sweep.where).parent
        os.rename(folder, f'{folder}.away')
        time.sleep(10)
        assert not folder.exists(), 'nothing may be started anew meanwhile'
        os.rename(f'{folder}.away', folder)
    sweep.finish(driver)
    assert sweep.check().count(TrialState.COMPLETE) == 6
    assert not retried(sweep)
    assert len(sweep.study().trials()) == 6


def test_sixteen_workers_finish_500_trials_on_postgresql(postgres: Postgres, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, postgres.database())
    sweep.configure(n_trials=500, heartbeat_s=15)
    script = tmp_path / 'stand_in.sh'  # a shell starts faster than Python
    script.write_text('echo \'{"value": 0.5}\' > "$(dirname "$1")/reports.jsonl"\n')
    sweep.command = (shutil.which('sh') or 'sh', str(script))
    sweep.finish(sweep.start(workers=16), timeout_s=500)
    assert sweep.check().count(TrialState.COMPLETE) == 500
    assert len(sweep.study().trials()) == 500
