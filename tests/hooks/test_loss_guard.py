import json
import math
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from toy_run import Points, assert_equal, guarded_runner, weights

from armbench_mmdet.errors import InputError

NAN = (float('nan'), 0, 0)
INFINITE = (1e30, 0, 0)  # its square is no float32


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


def test_a_step_left_out_is_as_if_its_image_were_not_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runner = guarded_runner(
        tmp_path / 'skip', iterations=8, data=Points(changed={3: NAN}), loss_guard={'on_bad_loss': 'skip'}
    )
    runner.train()
    without = Points()
    without.points = torch.cat([without.points[:3], without.points[4:]])
    clean = guarded_runner(tmp_path / 'clean', iterations=7, data=without)
    clean.train()
    assert_equal(weights(runner), weights(clean))
    printed = capsys.readouterr().out
    assert 'at iteration 4' in printed
    assert 'images/3.jpg' in printed
    assert 'left out, 1 of at most 10' in printed
    assert 'NaN' not in next((tmp_path / 'skip').glob('*/vis_data/scalars.json')).read_text()


def test_too_many_steps_left_out_stop_the_run(tmp_path: Path) -> None:
    data = Points(changed={1: NAN, 4: NAN, 5: NAN})
    runner = guarded_runner(tmp_path, data=data, loss_guard={'on_bad_loss': 'skip', 'max_skipped': 2})
    with pytest.raises(InputError, match=r'(?s)iteration 6.*after 2 steps were left out'):
        runner.train()


def test_other_hooks_see_the_losses_of_a_step_left_out(tmp_path: Path) -> None:
    """Losses that vanished made mmdet's own check of them fail with a KeyError."""
    seen: list[float] = []

    class Look(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            seen.append(float(outputs['loss']))

    data = Points(changed={0: NAN, 3: NAN})
    guarded_runner(tmp_path, data=data, loss_guard={'on_bad_loss': 'skip'}, hooks=[Look()]).train()
    assert [index for index, loss in enumerate(seen) if math.isnan(loss)] == [0, 3]
    rows = [json.loads(line) for line in next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert [row['loss'] for row in rows if 'loss' in row] == [pytest.approx(seen[i]) for i in (1, 2, 2, 4, 5)]


def test_accumulated_gradient_is_dropped_with_a_bad_loss(tmp_path: Path) -> None:
    options = {'optim_wrapper': {'accumulative_counts': 2}, 'loss_guard': {'on_bad_loss': 'skip'}}
    runner = guarded_runner(tmp_path / 'skip', iterations=6, data=Points(changed={3: NAN}), **options)
    runner.train()
    without = Points()
    without.points = torch.cat([without.points[:2], without.points[4:]])
    clean = guarded_runner(tmp_path / 'clean', iterations=4, data=without, **options)
    clean.train()
    assert_equal(weights(runner), weights(clean))
