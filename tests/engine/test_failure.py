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


@pytest.mark.parametrize(
    ('fail', 'said'),
    [
        (lambda: torch.empty(2**60, dtype=torch.uint8), 'allocate'),
        (lambda: raises(GPU_IS_FULL), 'Tried to allocate 20.00 GiB.\n'),
    ],
)
def test_out_of_memory_names_the_batch_and_what_to_do(tmp_path: Path, fail: Callable, said: str) -> None:
    calls = itertools.count(1)
    model = Fit(on_forward=lambda: next(calls) == 3 and fail())
    message = message_of(guarded_runner(tmp_path, batch_size=2, model=model))
    images = [f'images/{index}.jpg (30×20 px, {index} instances)' for index in (4, 5)]
    for part in ('at iteration 3', said, *images, 'train_dataloader.batch_size', 'accumulative_counts', '--amp'):
        assert part in message


def die(number: int, at: int):

    def load(index: int) -> None:
        note_image(index, f'images/{index}.jpg')
        if index == at:
            os.kill(os.getpid(), number)

    return load


@pytest.mark.parametrize('name', ['SIGKILL', 'SIGBUS', 'SIGSEGV'])
def test_data_loading_process_that_dies_names_its_image(tmp_path: Path, name: str) -> None:
    data = Points(on_load=die(getattr(signal, name), at=3))
    message = message_of(guarded_runner(tmp_path, data=data, num_workers=1))
    assert message.startswith('A data-loading process died')
    assert 'image images/3.jpg (index 3)' in message
    assert 'num_workers' in message


def test_unreadable_image_in_a_data_loading_process_is_one_message(tmp_path: Path) -> None:
    said = 'image must be readable, got a broken one (in images/2.jpg)\nsecond line'
    data = Points(on_load=lambda index: index == 2 and raises(UnreadableImageError(said)))
    assert message_of(guarded_runner(tmp_path, data=data, num_workers=1)) == said


@pytest.mark.parametrize(
    'error',
    [
        RuntimeError('[gloo/gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer'),
        torch.distributed.DistBackendError('NCCL communicator was aborted'),
    ],
)
def test_process_that_lost_another_says_whose_message_counts(tmp_path: Path, error: Exception) -> None:
    runner = guarded_runner(tmp_path, model=Fit(on_forward=lambda: raises(error)))
    assert message_of(runner).startswith('Another process of this run has ended')


def test_other_failures_pass_as_they_are(tmp_path: Path) -> None:
    runner = guarded_runner(tmp_path, model=Fit(on_forward=lambda: raises(KeyError('a defect'))))
    with pytest.raises(KeyError, match='a defect'), explained_failures(runner):
        runner.train()
