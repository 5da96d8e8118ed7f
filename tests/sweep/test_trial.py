"""One training process and what becomes of it."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path

import pytest
from mmengine.config import Config
from optuna.trial import TrialState
from sweeps import BASE, STAND_IN, stand_ins

from armbench_mmdet.hooks.loss_guard import LossGuardHook, describe_losses
from armbench_mmdet.sweep.trial import LOG, Outcome, Training, _command, fresh_folder


def start(folder: Path, **model: object) -> Training:
    (folder / 'base.py').write_text(BASE)
    trial = fresh_folder(folder, 0)
    (trial / 'config.py').write_text(f'model = dict({", ".join(f"{k}={v!r}" for k, v in model.items())})\n')
    training = Training(trial, STAND_IN, 'score', None)
    while not training.wait(0.01):
        if len(training.reports.values()) > training.reports.answered:
            training.reports.answer(stop=False)
        if model.get('behaviour') == 'hang' and stand_ins(folder):
            break
    return training


@pytest.mark.parametrize(
    ('behaviour', 'state', 'reason', 'error'),
    [
        ('good', TrialState.COMPLETE, '', ''),
        ('crash', TrialState.FAIL, 'crash', 'ValueError: the stand-in crashes'),
        ('memory', TrialState.FAIL, 'out of memory', 'CUDA out of memory'),
        ('nan', TrialState.FAIL, 'NaN', 'nan'),
        ('silent', TrialState.FAIL, 'no validation', ''),
    ],
)
def test_outcome(behaviour: str, state: TrialState, reason: str, error: str, tmp_path: Path) -> None:
    outcome = start(tmp_path, behaviour=behaviour, x=0.3).outcome(is_pruned=False)
    assert (outcome.state, outcome.reason, outcome.lost) == (state, reason, '')
    assert error in outcome.error
    assert outcome.exit_status == (1 if behaviour in ('crash', 'memory') else 0)
    assert outcome.value == (pytest.approx(0.02) if behaviour == 'good' else None)


def test_invalid_loss_is_told_from_a_crash(tmp_path: Path) -> None:
    training = start(tmp_path, behaviour='crash')
    (training.folder / LOG).write_text('loss become infinite or NaN!\nAssertionError: None\n')
    assert training.outcome(is_pruned=False).reason == 'NaN'


def test_the_loss_guards_words_are_told_from_a_crash(tmp_path: Path) -> None:
    training = start(tmp_path, behaviour='crash')
    said = describe_losses({'loss_mask': math.nan}, 7, {'data_samples': []})
    (training.folder / LOG).write_text(f'error: {said}{LossGuardHook()._remedy()}\n')
    outcome = training.outcome(is_pruned=False)
    assert outcome.reason == 'NaN'
    assert outcome.error == 'error: The loss is not finite at iteration 7: loss_mask nan.'


def test_training_told_to_stop_is_pruned(tmp_path: Path) -> None:
    outcome = start(tmp_path, behaviour='good').outcome(is_pruned=True)
    assert outcome == Outcome(TrialState.PRUNED, exit_status=0)


def test_end_leaves_nothing_and_counts_as_lost(tmp_path: Path) -> None:
    training = start(tmp_path, behaviour='hang')
    training.end()
    outcome = training.outcome(is_pruned=False)
    assert (outcome.reason, outcome.lost, outcome.error) == ('killed', 'died', 'by SIGTERM')
    assert outcome.exit_status == -signal.SIGTERM
    deadline = time.monotonic() + 20
    while stand_ins(tmp_path):
        assert time.monotonic() < deadline


def test_folder_of_an_older_study_is_moved_aside(tmp_path: Path) -> None:
    for expected in ([], ['trial_0007.old1'], ['trial_0007.old1', 'trial_0007.old2']):
        folder = fresh_folder(tmp_path, 7)
        assert not list(folder.iterdir())
        (folder / 'config.py').touch()
        assert sorted(path.name for path in tmp_path.glob('*.old*')) == expected


@pytest.mark.parametrize(('devices', 'is_distributed'), [(1, False), (2, True)])
def test_command(devices: int, is_distributed: bool) -> None:
    command = _command(Path('t'), ['python', 'train.py'], devices)
    assert command[0] == 'python'
    assert ('torch.distributed.run' in command) is is_distributed
    assert command[command.index('train.py') + 1 :][:3] == ['t/config.py', '--work-dir', 't/run']
    assert ('--launcher' in command) is is_distributed
    assert Config  # the options are those of tools/train.py, which the minibench sweep runs


def test_devices_are_pinned(tmp_path: Path) -> None:
    script = tmp_path / 'show.sh'
    script.write_text('echo "sees $CUDA_VISIBLE_DEVICES"\n')
    training = Training(fresh_folder(tmp_path, 0), ['sh', str(script)], 'score', '3')
    assert training.wait(30)
    assert (training.folder / LOG).read_text() == 'sees 3\n'
