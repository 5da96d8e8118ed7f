"""A loss that is NaN or infinite: the run stops before the weights change, or goes on without its images."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import Hook
from toy_run import Points, assert_equal, guarded_runner, weights

from armbench_mmdet.errors import InputError

NAN = (float('nan'), 0, 0)
INFINITE = (1e30, 0, 0)  # its square is no float32


def without(*left_out: int) -> Points:
    """The points but for some."""
    data = Points()
    data.points = data.points[[index for index in range(len(data)) if index not in left_out]]
    return data


@pytest.mark.parametrize(('point', 'value'), [(NAN, 'nan'), (INFINITE, 'inf')])
def test_bad_loss_stops_before_the_weights_change_and_names_what_it_came_from(tmp_path: Path, point, value) -> None:
    clean = guarded_runner(tmp_path / 'clean', iterations=2)
    clean.train()
    runner = guarded_runner(tmp_path / 'bad', data=Points(changed={2: point}))
    with pytest.raises(InputError) as caught:
        runner.train()
    message = str(caught.value)
    for part in (f'at iteration 3: loss {value}, loss_fit {value}, loss_size 0.', 'images/2.jpg (30×20 px, 2 inst'):
        assert part in message
    assert 'default_hooks.loss_guard.on_bad_loss=skip' in message
    assert_equal(weights(runner), weights(clean))


@pytest.mark.parametrize(
    ('accumulated', 'bad', 'left_out'),
    [(1, [0, 3], [0, 3]), (2, [3], [2, 3])],
    ids=['alone', 'with the gradient that was gathered'],
)
def test_a_step_left_out_is_as_if_its_images_were_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture, accumulated: int, bad: list[int], left_out: list[int]
) -> None:
    options: dict[str, Any] = {'optim_wrapper.accumulative_counts': accumulated}
    options['loss_guard'] = {'on_bad_loss': 'skip'}
    runner = guarded_runner(tmp_path / 'skip', 8, data=Points(changed=dict.fromkeys(bad, NAN)), **options)
    runner.train()
    clean = guarded_runner(tmp_path / 'clean', 8 - len(left_out), data=without(*left_out), **options)
    clean.train()
    assert_equal(weights(runner), weights(clean))
    printed = capsys.readouterr().out
    for number, index in enumerate(bad, 1):
        assert f'at iteration {index + 1}' in printed
        assert f'images/{index}.jpg' in printed
        assert f'left out, {number} of at most 10' in printed
    log = next((tmp_path / 'skip').glob('*/vis_data/scalars.json')).read_text()
    assert 'NaN' not in log
    losses = {row['step']: row.get('loss') for row in map(json.loads, log.splitlines())}
    assert losses[4] == losses[3], 'the former loss stands for the one that is left out'


def test_too_many_steps_left_out_stop_the_run_and_other_hooks_see_their_losses(tmp_path: Path) -> None:
    """Losses that vanished made mmdet's own check of them fail with a KeyError."""
    seen: list[float] = []

    class Look(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            seen.append(float(outputs['loss']))

    data = Points(changed={1: NAN, 4: NAN, 5: NAN})
    runner = guarded_runner(tmp_path, data=data, loss_guard={'on_bad_loss': 'skip', 'max_skipped': 2}, hooks=[Look()])
    with pytest.raises(InputError, match=r'(?s)iteration 6.*after 2 steps were left out'):
        runner.train()
    assert [index for index, loss in enumerate(seen) if math.isnan(loss)] == [1, 4]
