import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toy_run import Fit, Points, guarded_runner

from armbench_mmdet.datasets.images import note_image
from armbench_mmdet.engine import ArmbenchRunner
from armbench_mmdet.engine.failure import explained_failures
from armbench_mmdet.errors import InputError, UnreadableImageError


def raises(error: Exception) -> None:
    raise error


def message_of(runner: ArmbenchRunner) -> str:
    """What a user reads of a run that fails."""
    with pytest.raises(InputError) as caught, explained_failures(runner):
        runner.train()
    return str(caught.value)


GPU_IS_FULL = torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB.\nmore')
LOST = 'Another process of this run has ended'


@pytest.mark.parametrize(
    ('fail', 'said'),
    [
        (lambda: torch.empty(2**60, dtype=torch.uint8), 'allocate'),
        (lambda: raises(GPU_IS_FULL), 'Tried to allocate 20.00 GiB.\n'),
        (lambda: raises(RuntimeError('[gloo/gloo/transport/tcp/pair.cc:537] Connection reset by peer')), LOST),
        (lambda: raises(torch.distributed.DistBackendError('NCCL communicator was aborted')), LOST),
    ],
    ids=['memory', 'memory of a GPU', 'gloo', 'nccl'],
)
def test_a_failing_step_says_what_happened_and_on_which_batch(tmp_path: Path, fail: Callable, said: str) -> None:
    calls = itertools.count(1)
    model = Fit(on_forward=lambda: next(calls) == 3 and fail())
    message = message_of(guarded_runner(tmp_path, batch_size=2, model=model))
    assert said in message
    images = [f'images/{index}.jpg (30×20 px, {index} instances)' for index in (4, 5)]
    for part in ('at iteration 3', *images, 'train_dataloader.batch_size', 'accumulative_counts', '--amp'):
        assert (part in message) is (said != LOST)


@pytest.mark.parametrize('name', ['SIGKILL', 'SIGBUS', 'SIGSEGV'])
def test_data_loading_process_that_dies_names_its_image(tmp_path: Path, name: str) -> None:
    def load(index: int) -> None:
        note_image(index, f'images/{index}.jpg')
        if index == 3:
            os.kill(os.getpid(), getattr(signal, name))

    message = message_of(guarded_runner(tmp_path, data=Points(on_load=load), num_workers=1))
    assert message.startswith('A data-loading process died')
    assert 'image images/3.jpg (index 3)' in message
    assert 'num_workers' in message


def test_unreadable_image_in_a_data_loading_process_is_one_message(tmp_path: Path) -> None:
    said = 'image must be readable, got a broken one (in images/2.jpg)\nsecond line'
    data = Points(on_load=lambda index: index == 2 and raises(UnreadableImageError(said)))
    assert message_of(guarded_runner(tmp_path, data=data, num_workers=1)) == said


def test_other_failures_pass_as_they_are(tmp_path: Path) -> None:
    runner = guarded_runner(tmp_path, model=Fit(on_forward=lambda: raises(KeyError('a defect'))))
    with pytest.raises(KeyError, match='a defect'), explained_failures(runner):
        runner.train()
