"""Sweeps under test: a real PostgreSQL, and a sweep over a tiny search space."""

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from armbench_mmdet.sweep.space import load_space
from armbench_mmdet.sweep.study import open_storage, open_study
from armbench_mmdet.sweep.workers import Sweep

STAND_IN = (sys.executable, str(Path(__file__).with_name('stand_in.py')))
BASE = "model = dict(behaviour='good', x=0.5, steps=3, step_s=0.0)\ntrain_cfg = dict(max_iters=3)\n"
SPACE = """
base = 'base_config.py'
n_trials = {n_trials}
heartbeat_s = {heartbeat_s}
sampler = dict(type={sampler})
pruner = dict(type={pruner})
fixed = {fixed!r}
{more}
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


class SweepUnderTest:
    """A sweep whose trainings are stand-ins."""

    def __init__(self, folder: Path, where: str) -> None:
        self.folder, self.where, self.work_dir = folder, where, folder / 'work'
        self.commands: list[BaseProcess] = []
        (folder / 'base_config.py').write_text(BASE)
        self.configure()

    def configure(
        self,
        n_trials: int = 6,
        heartbeat_s: int = 10,
        sampler: str = "'RandomSampler'",
        pruner: str = "'NopPruner'",
        more: str = "objective = 'score'",
        **model: object,
    ) -> None:
        """Write the search space; ``model`` is what every trial sets."""
        fixed = {f'model.{key}': value for key, value in model.items()}
        named = {'n_trials': n_trials, 'heartbeat_s': heartbeat_s, 'sampler': sampler, 'pruner': pruner}
        text = SPACE.format(**named, more=more, fixed=fixed)
        (self.folder / 'space.py').write_text(text)

    def make(self, workers: int = 2, n_trials: int | None = None) -> Sweep:
        space = load_space(self.folder / 'space.py')
        total = n_trials or space.given.n_trials
        return Sweep(space, 'study', self.where, self.work_dir, STAND_IN, total, [None] * workers)

    def run(self, workers: int = 2, n_trials: int | None = None) -> bool:
        return self.make(workers, n_trials).run()

    def start(self, command: Callable[[], object] | None = None) -> BaseProcess:
        """Start the command in a process of its own."""
        command = command or (lambda: sys.exit(0 if self.run() else 130))
        process = multiprocessing.get_context('fork').Process(target=command)
        process.start()
        self.commands.append(process)
        return process

    def study(self) -> optuna.Study:
        space = load_space(self.folder / 'space.py')
        return open_study(open_storage(self.where, threading.Event()), 'study', space)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study().get_trials(states=states or None)

    def go(self) -> None:
        """Let the stand-ins that hang go on."""
        (self.work_dir / 'go').touch()

    def wait_for_trainings(self, count: int) -> list[int]:
        wait_until(lambda: len(self.trainings()) == count)
        return self.trainings()

    def trainings(self) -> list[int]:
        """Process ids of the stand-ins that run."""
        found = []
        for process in Path('/proc').glob('[0-9]*'):
            try:
                line = (process / 'cmdline').read_bytes().decode()
                state = (process / 'stat').read_text().rpartition(')')[2].split()[0]
            except OSError:
                continue
            if f'{self.work_dir}/trial_' in line and '/config.py' in line and state != 'Z':
                found.append(int(process.name))
        return found

    def finish(self, process: BaseProcess, status: int = 0) -> None:
        process.join(150)
        assert process.exitcode == status

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
