"""The checkpoint hook in a run that is too small to fail by itself."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from toy_run import EPOCHS, AtIteration, assert_equal, run, state_of, toy_config

from armbench_mmdet.errors import InputError

LATE = {'train_cfg.val_interval': 12}  # no best checkpoint before the end


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is left of a run that nothing has happened to."""
    return state_of(run(toy_config(tmp_path_factory.mktemp('whole'), **LATE)))


def names(folder: Path, pattern: str = '*.pth') -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


@pytest.mark.parametrize(('counted', 'kept'), [({}, ('iter_10', 'iter_12')), (EPOCHS, ('epoch_3', 'epoch_4'))])
def test_the_latest_the_one_before_and_the_best_are_kept(tmp_path: Path, counted: dict, kept: tuple[str, str]) -> None:
    (tmp_path / 'iter_2.pth.draft').touch()  # what a kill has left half written
    runner = run(toy_config(tmp_path, **counted))
    best = Path(runner.message_hub.get_info('best_ckpt')).name
    assert names(tmp_path) == sorted([best, *(f'{name}.pth' for name in kept)])
    assert Path((tmp_path / 'last_checkpoint').read_text()) == tmp_path / f'{kept[1]}.pth'
    assert not names(tmp_path, '*.draft')


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def run_on_a_disk_that_fills(config: Config, file: str) -> None:
    """Nothing can be written after the fifth iteration, and the run ends at a file."""
    with pytest.MonkeyPatch.context() as patch:
        config.custom_hooks.append(AtIteration(5, lambda: patch.setattr(os, 'fsync', full)))
        with pytest.raises(InputError, match=rf'No space left on device \(in .*{file}\.pth\)'):
            run(config)


def test_a_full_disk_ends_the_run_and_leaves_what_was(tmp_path: Path, whole: dict[str, Any]) -> None:
    run_on_a_disk_that_fills(toy_config(tmp_path, **LATE), 'iter_6')
    assert names(tmp_path, 'iter_*.pth') == ['iter_2.pth', 'iter_4.pth']
    assert_equal(state_of(run(toy_config(tmp_path, **LATE), 'auto')), whole)


def test_the_best_until_now_stays_when_a_better_one_cannot_be_written(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    config.default_hooks.checkpoint.interval = -1
    run_on_a_disk_that_fills(config, 'best_toy_score_iter_6')
    assert 'best_toy_score_iter_3.pth' in names(tmp_path)


def test_a_damaged_checkpoint_costs_two_iterations_and_nothing_else(tmp_path: Path, whole: Any, capsys) -> None:
    run(toy_config(tmp_path, **LATE), dies=dict(iteration=7))
    with (tmp_path / 'iter_6.pth').open('r+b') as file:
        file.seek(-2000, 2)
        file.write(b'?' * 100)
    runner = run(toy_config(tmp_path, **LATE), 'auto')
    printed = ''.join(capsys.readouterr())
    assert 'passed over' in printed
    assert 'iter_4.pth at iteration 4 of 12' in printed
    assert_equal(state_of(runner), whole)
