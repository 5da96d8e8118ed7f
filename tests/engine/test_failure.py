from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from toy_run import Fit, Points, guarded_runner

from armbench_mmdet.datasets.worker_notes import image_in_work, note_image, share_notes
from armbench_mmdet.engine.failure import explained_failures
from armbench_mmdet.errors import InputError, UnreadableImageError


def allocate_too_much() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def gpu_out_of_memory() -> None:
    raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB.\nmore')


@pytest.mark.parametrize(
    ('fail', 'said'), [(allocate_too_much, 'allocate'), (gpu_out_of_memory, 'Tried to allocate 20.00 GiB.')]
)
def test_out_of_memory_names_the_batch_and_what_to_do(tmp_path: Path, fail, said: str) -> None:
    iterations = []

    def third_fails() -> None:
        iterations.append(1)
        if len(iterations) == 3:
            fail()

    runner = guarded_runner(tmp_path, batch_size=2, model=Fit(on_forward=third_fails))
    with pytest.raises(InputError) as caught, explained_failures(runner):
        runner.train()
    message = str(caught.value)
    for part in (
        'at iteration 3',
        said,
        'images/4.jpg (30×20 px, 4 instances)',
        'images/5.jpg (30×20 px, 5 instances)',
        'train_dataloader.batch_size',
        'accumulative_counts',
        '--amp',
    ):
        assert part in message


def die(number: int, at: int):
    share_notes()

    def load(index: int) -> None:
        note_image(index, f'images/{index}.jpg')
        if index == at:
            os.kill(os.getpid(), number)

    return load


@pytest.mark.parametrize('name', ['SIGKILL', 'SIGBUS', 'SIGSEGV'])
def test_data_loading_process_that_dies_names_its_image(tmp_path: Path, name: str) -> None:
    data = Points(on_load=die(getattr(signal, name), at=3))
    runner = guarded_runner(tmp_path, data=data, num_workers=1)
    with pytest.raises(InputError) as caught, explained_failures(runner):
        runner.train()
    message = str(caught.value)
    assert 'image images/3.jpg (index 3)' in message
    assert 'num_workers' in message
    assert message.startswith('A data-loading process died')


def test_unreadable_image_in_a_data_loading_process_is_one_message(tmp_path: Path) -> None:
    def load(index: int) -> None:
        if index == 2:
            raise UnreadableImageError('image must be readable, got a broken one (in images/2.jpg)\nsecond line')

    runner = guarded_runner(tmp_path, data=Points(on_load=load), num_workers=1)
    with pytest.raises(InputError) as caught, explained_failures(runner):
        runner.train()
    assert str(caught.value) == 'image must be readable, got a broken one (in images/2.jpg)\nsecond line'


@pytest.mark.parametrize(
    'error',
    [
        RuntimeError('[gloo/gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer'),
        torch.distributed.DistBackendError('NCCL communicator was aborted'),
    ],
)
def test_process_that_lost_another_says_whose_message_counts(tmp_path: Path, error: Exception) -> None:
    def fail() -> None:
        raise error

    runner = guarded_runner(tmp_path, model=Fit(on_forward=fail))
    with pytest.raises(InputError, match='Another process of this run has ended'), explained_failures(runner):
        runner.train()


def test_other_failures_pass_as_they_are(tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyError('a defect')

    runner = guarded_runner(tmp_path, model=Fit(on_forward=fail))
    with pytest.raises(KeyError, match='a defect'), explained_failures(runner):
        runner.train()


def test_image_of_a_process_is_known_to_the_one_it_came_from() -> None:
    assert image_in_work(os.getpid() + 1) is None
    child = os.fork()
    if not child:
        note_image(17, 'images/' + 'long' * 500)
        note_image(5, 'images/ä.jpg')
        os._exit(0)
    os.waitpid(child, 0)
    assert image_in_work(child) == (5, 'images/ä.jpg')
