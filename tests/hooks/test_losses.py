"""Losses: bad ones stop a run or leave out a step, those of validation are right and disturb nothing."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from processes import in_processes
from small_models import LEAVES, tiny_config
from toy_run import Points, assert_equal, guarded_runner, logged, weights

from armbench_mmdet.engine.checkpoints import load_weights
from armbench_mmdet.engine.distributed import joined_processes
from armbench_mmdet.errors import InputError
from armbench_mmdet.hooks.losses import ValidationLossHook
from armbench_mmdet.launch import build_runner, train

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
    others = Points()
    others.points = others.points[[index for index in range(8) if index not in left_out]]
    clean = guarded_runner(tmp_path / 'clean', len(others), data=others, **options)
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


def validating_config(model: str, root: Path, work_dir: Path) -> Config:
    """Four iterations, validated after two and after four."""
    config = tiny_config(root, work_dir, 4, model)
    config.train_cfg.val_interval = 2
    config.default_hooks.logger.interval = 1
    config.val_dataloader.dataset.pipeline[1].scale = (300, 240)  # not a multiple of 32, so that masks are padded
    return config


@pytest.fixture(scope='module', params=sorted(LEAVES))
def runner(request: pytest.FixtureRequest, minibench_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    config = validating_config(request.param, minibench_root, tmp_path_factory.mktemp(request.param))
    config.default_hooks.checkpoint = None  # nothing is trained
    return build_runner(config)


def losses_by_hand(runner: Runner, places: list[int]) -> dict[str, float]:
    """The means of what ``train_step`` would minimise, image by image, through mmdet's own interface."""
    model, dataset = runner.model.eval(), runner.val_dataloader.dataset
    rows = []
    for place in places:
        batch = pseudo_collate([dataset[place]])
        torch.manual_seed(0)
        with torch.no_grad():
            data = model.data_preprocessor(batch, training=True)
            rows.append(model.parse_losses(model.loss(data['inputs'], data['data_samples']))[1])
    return {f'val_loss/{name}': float(np.mean([row[name] for row in rows])) for name in rows[0] if 'loss' in name}


@pytest.mark.parametrize(
    ('max_images', 'empty', 'places'), [(200, None, [0, 1, 2]), (2, None, [0, 2]), (200, 1, [0, 2])]
)
def test_a_validation_logs_what_training_minimises(
    runner: Runner, max_images: int, empty: int | None, places: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On all images, on a few that stand for all, and where one has no instances and does not count."""
    dataset = runner.val_dataloader.dataset
    original, hook = dataset.get_data_info, next(h for h in runner.hooks if isinstance(h, ValidationLossHook))
    nothing = {'instances': []}
    monkeypatch.setattr(dataset, 'get_data_info', lambda idx: original(idx) | (nothing if idx == empty else {}))
    monkeypatch.setattr(hook, 'max_images', max_images)
    losses = {name: value for name, value in runner.val().items() if name.startswith('val_loss/')}
    assert losses == pytest.approx(losses_by_hand(runner, places), rel=1e-5)
    total = losses.pop('val_loss/loss')
    assert total == pytest.approx(sum(losses.values()), rel=1e-5)
    assert runner.message_hub.get_scalar('val/val_loss/loss').mean() == total, 'not averaged over validations'


@pytest.mark.slow
@pytest.mark.parametrize('model', sorted(LEAVES))
def test_training_is_the_same_with_and_without(model: str, minibench_root: Path, tmp_path: Path) -> None:
    weights, rows = {}, {}
    for is_on in (True, False):
        work_dir = tmp_path / str(is_on)
        config = validating_config(model, minibench_root, work_dir)
        config.default_hooks.validation_loss.enabled = is_on
        train(config)
        weights[is_on], rows[is_on] = load_weights(work_dir / 'iter_4.pth'), logged(work_dir)
    assert_equal(weights[True], weights[False])
    assert not any(name.startswith('val_loss/') for row in rows[False].values() for name in row)
    for step in (2, 4):
        components = {f'val_loss/{name}' for name in rows[True]['train', step] if 'loss' in name}
        assert {'coco/segm_mAP', *components} <= rows[True]['val', step].keys()


@pytest.mark.parametrize('pipeline', [['Resize', 'LoadAnnotations'], ['Resize']], ids=len)
def test_annotations_must_fit_the_image(pipeline: list[str], runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {'Resize': dict(scale=(80, 64)), 'LoadAnnotations': dict(with_bbox=True, with_mask=True)}
    chosen = [dict(type=name, **options[name]) for name in pipeline]
    pack = dict(type='PackDetInputs', meta_keys=('img_path', 'img_shape'))
    changed = Compose([dict(type='LoadImageFromFile'), *chosen, pack])
    monkeypatch.setattr(runner.val_dataloader.dataset, 'pipeline', changed)
    with pytest.raises(InputError, match=r'pipeline must load annotations, before it resizes, .*put LoadPolygons'):
        ValidationLossHook().before_train(runner)


def validate_share(config: Config, folder: Path) -> None:
    """Runs in every process."""
    with joined_processes(config, 'pytorch'):
        metrics = build_runner(config).val()
        losses = {name: value for name, value in metrics.items() if name.startswith('val_loss/')}
        (folder / f'{get_rank()}.json').write_text(json.dumps(losses))


@pytest.mark.slow
@pytest.mark.parametrize('model', LEAVES)
def test_two_processes_share_the_images(model: str, minibench_root: Path, tmp_path: Path) -> None:
    config = validating_config(model, minibench_root, tmp_path)
    assert in_processes(2, tmp_path, validate_share, config, tmp_path)
    first, second = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2))
    assert first == second
    assert first['val_loss/loss'] > 0
    # Mask2Former's mask losses are normalised across processes, Mask R-CNN's are not. The third image has no partner:
    # the sampler repeats the first beside it.
    if model == 'mask_rcnn':
        assert first == pytest.approx(losses_by_hand(build_runner(config), [0, 1, 2, 0]), rel=1e-5)
