"""Sweeps under test: a real PostgreSQL, and a sweep over a tiny search space."""

import csv
import itertools
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from armbench_mmdet.sweep.space import load_space
from armbench_mmdet.sweep.study import attempts, open_storage, open_study
from armbench_mmdet.sweep.workers import Sweep

STAND_IN = (sys.executable, str(Path(__file__).with_name('stand_in.py')))
BASE = "model = dict(behaviour='good', x=0.5, steps=3, step_s=0.0)\ntrain_cfg = dict(max_iters=3)\n"
SPACE = {
    'base': 'base_config.py',
    'objective': 'score',
    'n_trials': 6,
    'heartbeat_s': 10,
    'sampler': {'type': 'RandomSampler'},
    'parameters': {
        'model.x': {'type': 'float', 'low': 0.0, 'high': 1.0},
        'train_cfg.max_iters': {'type': 'int', 'low': 1, 'high': 9},
    },
}


class Postgres:
    """A PostgreSQL server on loopback, in a temporary folder."""

    def __init__(self, binaries: Path) -> None:
        self.binaries, self._numbers = binaries, itertools.count()
        self.folder = Path(tempfile.mkdtemp(prefix='sweep-postgres-'))
        self._as_user = [] if os.getuid() else ['runuser', '-u', 'postgres', '--']  # it refuses to run as root
        if self._as_user:
            shutil.chown(self.folder, 'postgres', 'postgres')
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self.address = f'postgresql://sweep@127.0.0.1:{probe.getsockname()[1]}'
        self._run('initdb', '-U', 'sweep', '-A', 'trust', '-E', 'UTF8', '--no-sync')
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, str(self.binaries / program), '-D', f'{self.folder}/data', *arguments]
        subprocess.run(command, cwd=self.folder, stdin=subprocess.DEVNULL, timeout=60, check=True)

    def start(self) -> None:
        port = self.address.rpartition(':')[2]
        options = f'-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off'
        self._run('pg_ctl', '-l', f'{self.folder}/log', '-w', '-o', options, 'start')

    def stop(self) -> None:
        self._run('pg_ctl', '-w', '-m', 'immediate', 'stop')

    def database(self) -> str:
        """The address of a new, empty database."""
        import psycopg

        name = f'study{next(self._numbers)}'
        with psycopg.connect(f'{self.address}/postgres', autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE {name}'.encode())
        return f'{self.address}/{name}'


class SweepUnderTest:
    """A sweep whose trainings are stand-ins."""

    def __init__(self, folder: Path, where: str) -> None:
        self.folder, self.where, self.work_dir = folder, where, folder / 'work'
        self.commands: list[BaseProcess] = []
        (folder / 'base_config.py').write_text(BASE)
        self.configure()

    def configure(self, behaviour: str = 'good', steps: int = 3, step_s: float = 0.0, **more: object) -> None:
        """Write the search space, and what every trial does in it."""
        fixed = {'model.behaviour': behaviour, 'model.steps': steps, 'model.step_s': step_s}
        space = {**SPACE, 'fixed': fixed, **more}
        (self.folder / 'space.py').write_text(''.join(f'{key} = {value!r}\n' for key, value in space.items()))

    def make(self, workers: int = 2, n_trials: int | None = None) -> Sweep:
        space = load_space(self.folder / 'space.py')
        total = n_trials or space.given.n_trials
        return Sweep(space, 'study', self.where, self.work_dir, STAND_IN, total, [None] * workers)

    def run(self, workers: int = 2, n_trials: int | None = None) -> bool:
        return self.make(workers, n_trials).run()

    def start(self, command: Callable[[], object] | None = None) -> BaseProcess:
        command = command or (lambda: sys.exit(0 if self.run() else 130))
        process = multiprocessing.get_context('fork').Process(target=command)
        process.start()
        self.commands.append(process)
        return process

    def finish(self, process: BaseProcess, status: int = 0) -> None:
        process.join(150)
        assert process.exitcode == status

    def kill(self) -> None:
        """End whatever still runs."""
        for process in self.commands:
            process.kill()
            process.join()
        for pid in self.trainings():
            os.kill(pid, signal.SIGKILL)

    def study(self) -> optuna.Study:
        space = load_space(self.folder / 'space.py')
        return open_study(open_storage(self.where, threading.Event()), 'study', space)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study().get_trials(states=states or None)

    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader((self.work_dir / 'trials.csv').open()))

    def retried(self) -> list[int]:
        """Numbers of the trials that were lost; each was tried again with the same parameters."""
        trials = self.trials()
        again = {attempts(trial)[-2]: trial for trial in trials if len(attempts(trial)) > 1}
        assert all(trial.params == trials[number].params for number, trial in again.items())
        return sorted(again)

    def go(self) -> None:
        """Let the stand-ins that hang go on."""
        (self.work_dir / 'go').touch()

    def trainings(self) -> list[int]:
        """Process ids of the stand-ins that run."""
        found = []
        for line in Path('/proc').glob('[0-9]*/cmdline'):
            with suppress(OSError):  # it has ended
                if f'{self.work_dir}/trial_'.encode() in line.read_bytes():
                    found.append(int(line.parent.name))
        return found

    def wait_for_trainings(self, count: int) -> list[int]:
        wait_until(lambda: len(self.trainings()) == count)
        return self.trainings()

    def check(self, **counts: int) -> None:
        """So many trials in each state, no other left, and no training either."""
        states = [trial.state.name.lower() for trial in self.trials()]
        assert {state: states.count(state) for state in states} == counts
        assert not self.trainings()


def wait_until(is_so: Callable[[], object], timeout_s: float = 100) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)
