"""The progress line, on a terminal and in a file."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.logging import MessageHub

from armbench_mmdet.hooks.progress import ProgressHook


def run(monkeypatch: pytest.MonkeyPatch, is_terminal: bool = False, **options: Any) -> list[str]:
    """Two iterations, a validation that prints, two iterations; what was written, line by line."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, 'isatty', lambda: is_terminal)
    monkeypatch.setattr('sys.stderr', stream)
    hub = MessageHub('progress')
    runner: Any = SimpleNamespace(max_iters=4, iter=0, message_hub=hub, val_dataloader=[None] * 2)
    hook = ProgressHook(**options)
    hook.before_train(runner)
    for iteration in range(4):
        hub.update_scalar('train/loss', 4.0 - iteration)
        hook.after_train_iter(runner, iteration)
        if iteration == 1:
            hook.before_val_epoch(runner)
            for batch in range(2):
                hook.after_val_iter(runner, batch)
            stream.write('a table\n')
            hook.after_val_epoch(runner, {'coco/segm_mAP': 0.25})
    hook.after_train(runner)
    return stream.getvalue().split('\n')


def test_in_a_file_every_line_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch) == ['a table', ''], 'a line now and then'
    lines = run(monkeypatch, line_interval_s=0.0)
    assert not any(character in line for line in lines for character in '\r\x1b')
    assert 'a table' in lines
    training = [line for line in lines if line.startswith('train:')]
    assert all('ETA ' in line for line in training)
    assert any(' 2/4 ' in line and line.endswith('loss=3.000]') for line in training)
    assert ' 4/4 ' in training[-1]
    assert training[-1].endswith('loss=1.000, segm_mAP=0.250]')


def test_on_a_terminal_prints_do_not_run_into_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run(monkeypatch, is_terminal=True)
    assert not any('\x1b' in line for line in lines), 'one bar at a time, so the cursor never moves up'
    table, training, _ = (line.rpartition('\r')[2] for line in lines)  # drawn last
    assert table == 'a table'
    assert training.startswith('train: 100%|')
    assert 'ETA 00:00' in training
    assert training.endswith('loss=1.000, segm_mAP=0.250]')
