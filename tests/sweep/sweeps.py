"""Sweeps under test: a real PostgreSQL, a tiny search space, and drivers in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from optuna.trial import TrialState

from armbench_mmdet.sweep.driver import Driver
from armbench_mmdet.sweep.space import load_space
from armbench_mmdet.sweep.storage import open_storage
from armbench_mmdet.sweep.study import SharedStudy, Tally
from armbench_mmdet.sweep.worker import Task

STAND_IN = (sys.executable, str(Path(__file__).with_name('stand_in.py')))
BASE = "model = dict(behaviour='good', x=0.5, steps=3, step_s=0.0)\ntrain_cfg = dict(max_iters=3)\n"
SPACE = """
base = 'base_config.py'
objective = 'score'
n_trials = {n_trials}
heartbeat_s = {heartbeat_s}
sampler = dict(type={sampler})
pruner = dict(type={pruner})
fixed = {fixed!r}
parameters = {{
    'model.x': dict(type='float', low=0.0, high=1.0),
    'train_cfg.max_iters': dict(type='int', low=1, high=9),
}}
"""


class Postgres:
    """A PostgreSQL server on loopback, in a temporary folder."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix='sweep-postgres-'))
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self.port = probe.getsockname()[1]
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(self.folder, 'postgres', 'postgres')
        self._run('initdb', '-D', f'{self.folder}/data', '-U', 'sweep', '-A', 'trust', '-E', 'UTF8', '--no-sync')
        self.start()
        self._count = 0

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), *arguments]
        if os.getuid() == 0:
            command = ['runuser', '-u', 'postgres', '--', *command]
        done = subprocess.run(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        options = f'-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off'
        self._run('pg_ctl', '-D', f'{self.folder}/data', '-l', f'{self.folder}/log', '-w', '-o', options, 'start')

    def stop(self) -> None:
        self._run('pg_ctl', '-D', f'{self.folder}/data', '-w', '-m', 'immediate', 'stop')

    def database(self) -> str:
        """The address of a new, empty database."""
        import psycopg

        self._count += 1
        address = f'postgresql://sweep@127.0.0.1:{self.port}'
        with psycopg.connect(f'{address}/postgres', autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE study{self._count}'.encode())
        return f'{address}/study{self._count}'


class Sweep:
    """A sweep under test."""

    def __init__(self, folder: Path, where: str) -> None:
        self.folder = folder
        self.where = where
        self.work_dir = folder / 'work'
        self.command: tuple[str, ...] = STAND_IN
        self.drivers: list[BaseProcess] = []
        (folder / 'base_config.py').write_text(BASE)
        self.configure()

    def configure(
        self,
        n_trials: int = 6,
        heartbeat_s: float = 0.5,
        sampler: str = "'RandomSampler'",
        pruner: str = "'NopPruner'",
        **model: object,
    ) -> None:
        """Write the search space; ``model`` is what every trial sets, the others Python of the file."""
        self.n_trials = n_trials
        fixed = {f'model.{key}': value for key, value in model.items()}
        text = SPACE.format(n_trials=n_trials, heartbeat_s=heartbeat_s, sampler=sampler, pruner=pruner, fixed=fixed)
        (self.folder / 'space.py').write_text(text)

    def driver(self, workers: int = 2, study: str = 'study', n_trials: int | None = None) -> Driver:
        space = load_space(self.folder / 'space.py')
        task = Task(space, study, self.where, self.work_dir, self.command, n_trials or space.n_trials, ())
        return Driver(task, [None] * workers)

    def start(self, workers: int = 2) -> BaseProcess:
        """Start a driver in a process of its own."""

        def run() -> None:
            raise SystemExit(0 if self.driver(workers).run() else 130)

        process = multiprocessing.get_context('fork').Process(target=run)
        process.start()
        self.drivers.append(process)
        return process

    def study(self) -> SharedStudy:
        return SharedStudy(open_storage(self.where), 'study', load_space(self.folder / 'space.py'))

    def wait_until(self, is_so: Callable[[Tally], object], timeout_s: float = 60) -> Tally:
        study, deadline = self.study(), time.monotonic() + timeout_s
        while not is_so(count := study.tally()):
            assert time.monotonic() < deadline, [(t.number, t.state, t.user_attrs) for t in count.latest.values()]
            time.sleep(0.05)
        return count

    def go(self) -> None:
        """Let the stand-ins that hang go on."""
        (self.work_dir / 'go').touch()

    def finish(self, process: BaseProcess, timeout_s: float = 90) -> None:
        process.join(timeout_s)
        assert process.exitcode == 0

    def check(self) -> Tally:
        """No trial lost, none counted twice, none left running; and no stand-in either."""
        study = self.study()
        count = study.tally()
        states = [trial.state for trial in study.trials()]
        assert TrialState.RUNNING not in states
        assert TrialState.WAITING not in states
        assert len(count.latest) == count.settled == self.n_trials
        assert not count.owed
        assert not stand_ins(self.work_dir)
        return count


def stand_ins(folder: Path) -> list[int]:
    """Process ids of the trainings below ``folder``."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            line = (process / 'cmdline').read_bytes().decode()
            state = (process / 'stat').read_text().rpartition(')')[2].split()[0]
        except OSError:
            continue
        if 'stand_in.py' in line and str(folder) in line and state != 'Z':
            found.append(int(process.name))
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
