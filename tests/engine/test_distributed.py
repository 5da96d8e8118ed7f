"""What the processes of a run agree on, and that together they train what one process does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from processes import in_processes
from toy_run import Points, guarded_runner, weights

from armbench_mmdet.engine import ArmbenchRunner
from armbench_mmdet.engine.distributed import gathered, joined_processes, largest, total
from armbench_mmdet.engine.failure import explained_failures
from armbench_mmdet.errors import InputError

IMAGES_A_STEP = 4
BAD = {9: (float('nan'), 0, 0)}  # in the third step, and in the second process if there are two


def agree(count: int) -> None:
    rank = torch.distributed.get_rank()
    assert largest(15 if rank == count - 1 else 0) == 15
    assert float(total(torch.tensor(float(rank)))) == sum(range(count))
    assert bool(total(torch.tensor(float('inf') if rank else 1.0)).isinf()) == (count > 1)
    for dealt in (range(7), [*range(7), *range(-7 % count)]):  # shares as they fall, and filled up
        assert gathered(list(dealt)[rank::count], 7) == ([] if rank else list(range(7)))


def share(count: int, folder: Path, **options: Any) -> ArmbenchRunner:
    """The run of this process: four images a step in all."""
    images = Points(count=24, changed=BAD)
    return guarded_runner(folder, 5, data=images, batch_size=IMAGES_A_STEP // count, launcher='pytorch', **options)


def everything(count: int, folder: Path) -> None:
    """Runs in every process."""
    config = Config()
    with joined_processes(config, 'pytorch'):
        agree(count)
        wrapper = {'model_wrapper_cfg': config.model_wrapper_cfg}
        runner = share(count, folder / 'skip', loss_guard={'on_bad_loss': 'skip'}, **wrapper)
        assert isinstance(runner.model, MMDistributedDataParallel)
        runner.train()
        torch.save(weights(runner), folder / f'weights_{runner.rank}.pth')

        runner = share(count, folder / 'stop', **wrapper)
        with pytest.raises(InputError) as failed, explained_failures(runner):
            runner.train()
        (folder / f'message_{runner.rank}').write_text(str(failed.value))


@pytest.mark.slow
def test_processes_agree_and_together_train_what_one_does(tmp_path: Path) -> None:
    for count in (1, 2, 4):
        assert in_processes(count, tmp_path / str(count), everything, count, tmp_path / str(count))
    alone = torch.load(tmp_path / '1/weights_0.pth')
    for rank in range(2):
        shared = torch.load(tmp_path / f'2/weights_{rank}.pth')
        for name in alone:
            torch.testing.assert_close(shared[name], alone[name], rtol=0, atol=1e-6)
    messages = [(tmp_path / f'2/message_{rank}').read_text() for rank in range(2)]
    assert 'not finite at iteration 3 in another process: ' in messages[0]
    assert 'at iteration 3: loss nan, loss_fit nan' in messages[1]
    assert 'images/9.jpg' in messages[1]
