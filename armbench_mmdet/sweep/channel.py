"""What a training and the worker that watches it tell each other: two small files in the trial's folder.

Files, because they outlive either side, reach through ``torchrun``, and need no import of this package: this module
uses the standard library only. The training never talks to the storage.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

VARIABLE = 'ARMBENCH_SWEEP'  # in the training's environment: the folder, the metric's name, the worker's process id
_REPORTS, _ANSWERS = 'reports.jsonl', 'answers.jsonl'
_POLL_S = 0.02
_PATIENCE_S = 60.0


class Reporter:
    """The training's end: reports the metric, and asks whether to go on.

    Args:
        folder: The trial's folder.
        worker_pid: Process id of the worker.
    """

    def __init__(self, folder: str | Path, worker_pid: int) -> None:
        self.folder = Path(folder)
        self.worker_pid = worker_pid
        self._reported = 0

    def report(self, value: float, patience_s: float = _PATIENCE_S) -> bool:
        """Report the metric of one validation.

        Args:
            value: The metric.
            patience_s: How long to wait for the answer; with the storage away it may come later, and then counts at
                the next validation.

        Returns:
            Whether training shall stop.
        """
        with (self.folder / _REPORTS).open('a') as file:
            file.write(json.dumps({'value': float(value)}) + '\n')
        self._reported += 1
        deadline = time.monotonic() + patience_s
        while True:
            answers = _lines(self.folder / _ANSWERS)
            if len(answers) >= self._reported or time.monotonic() > deadline or self.is_abandoned():
                return 'stop' in answers
            time.sleep(_POLL_S)

    def is_abandoned(self) -> bool:
        """Whether the worker is gone."""
        try:
            os.kill(self.worker_pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False


class Reports:
    """The worker's end: reads the metric's values, and answers.

    Args:
        folder: The trial's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answered = 0

    def values(self) -> list[float]:
        """Return every value reported so far."""
        return [json.loads(line)['value'] for line in _lines(self.folder / _REPORTS)]

    def answer(self, stop: bool) -> None:
        """Answer the oldest report without an answer."""
        with (self.folder / _ANSWERS).open('a') as file:
            file.write('stop\n' if stop else 'go\n')
        self.answered += 1


def _lines(path: Path) -> list[str]:
    """The complete lines of a file, none where it does not exist yet."""
    if not path.exists():
        return []
    return [line.rstrip('\n') for line in path.read_text().splitlines(keepends=True) if line.endswith('\n')]
