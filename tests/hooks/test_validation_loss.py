"""The validation loss: the right numbers, and nothing of training disturbed."""

from __future__ import annotations

import json
import random
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from armbench_mmdet import configs
from armbench_mmdet.engine.checkpoints import load_weights
from armbench_mmdet.engine.loops import seed_generators
from armbench_mmdet.errors import InputError
from armbench_mmdet.hooks.validation_loss import ValidationLossHook, batch_losses, evenly_spaced
from armbench_mmdet.launch import build_runner, train

REPO = Path(__file__).resolve().parents[2]
LEAVES = {
    'mask-rcnn': 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py',
    'mask2former': 'configs/mask2former/mask2former_r18-w32_q30_minibench.py',
}


def tiny_config(model: str, root: Path, work_dir: Path, *options: str) -> Config:
    config = configs.load_config(REPO / LEAVES[model], configs.parse_options(options))
    configs.set_data_root(config, root)
    configs.set_work_dir(config, work_dir)
    config.param_scheduler = config.param_scheduler[:1]
    config.train_cfg.update(max_iters=4, val_interval=2)
    config.default_hooks.checkpoint.interval = 4
    config.default_hooks.logger.interval = 1
    config.val_dataloader.dataset.pipeline[1].scale = (300, 240)  # not a multiple of 32, so that masks are padded
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    return config


@pytest.fixture(scope='module', params=sorted(LEAVES))
def runner(request: pytest.FixtureRequest, minibench_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    config = tiny_config(request.param, minibench_root, tmp_path_factory.mktemp(request.param))
    config.default_hooks.checkpoint = None  # nothing is trained
    return build_runner(config)


def losses_by_hand(runner: Runner, places: list[int]) -> dict[str, float]:
    """The means of what ``train_step`` would minimise, image by image, through mmdet's own interface."""
    model, dataset = runner.model.eval(), runner.val_dataloader.dataset
    rows = []
    for place in places:
        batch = pseudo_collate([dataset[place]])
        seed_generators(0)
        with torch.no_grad():
            data = model.data_preprocessor(batch, training=True)
            rows.append(model.parse_losses(model.loss(data['inputs'], data['data_samples']))[1])
    return {f'val_loss/{name}': float(np.mean([row[name] for row in rows])) for name in rows[0] if 'loss' in name}


def test_a_validation_logs_what_training_minimises(runner: Runner) -> None:
    metrics = runner.val()
    expected = losses_by_hand(runner, [0, 1, 2])
    assert {name for name in metrics if name.startswith('val_loss/')} == set(expected)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    components = sum(value for name, value in expected.items() if name != 'val_loss/loss')
    assert metrics['val_loss/loss'] == pytest.approx(components, rel=1e-5)


def test_a_few_images_stand_for_all(runner: Runner) -> None:
    hook = next(hook for hook in runner.hooks if isinstance(hook, ValidationLossHook))
    hook.max_images = 2
    metrics = runner.val()
    hook.max_images = 200
    expected = losses_by_hand(runner, [0, 2])
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_images_without_instances_do_not_count(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = runner.val_dataloader.dataset
    original = dataset.get_data_info
    monkeypatch.setattr(
        dataset, 'get_data_info', lambda idx: {**original(idx), **({'instances': []} if idx == 1 else {})}
    )
    metrics = runner.val()
    expected = losses_by_hand(runner, [0, 2])
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def random_states() -> list[Any]:
    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # noqa: NPY002


def test_nothing_is_left_behind(runner: Runner) -> None:
    model = runner.model.eval()
    batch = pseudo_collate([runner.val_dataloader.dataset[0]])
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    before, randomness = {name: value.clone() for name, value in model.state_dict().items()}, random_states()
    with torch.no_grad():
        losses = [batch_losses(model, batch) for _ in range(2)]
    assert losses[0] == losses[1], 'equal weights have equal losses'
    assert random_states() == randomness
    after = model.state_dict()
    assert any('num_batches_tracked' in name for name in after)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert 'masks' in batch['data_samples'][0].gt_instances
    assert batch['data_samples'][0].gt_instances.masks.height == batch['data_samples'][0].img_shape[0]


def test_precision_is_that_of_training(runner: Runner) -> None:
    class Half(OptimWrapper):
        @contextmanager
        def optim_context(self, model: torch.nn.Module) -> Any:
            with torch.autocast('cpu', torch.bfloat16):
                yield

    batch = pseudo_collate([runner.val_dataloader.dataset[0]])
    wrapper = Half(torch.optim.SGD(runner.model.parameters(), lr=1.0))
    with torch.no_grad():
        full, half = (
            batch_losses(runner.model.eval(), batch)['loss'],
            batch_losses(runner.model, batch, wrapper)['loss'],
        )
    assert half != full
    assert half == pytest.approx(full, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize('model', sorted(LEAVES))
def test_training_is_the_same_with_and_without(model: str, minibench_root: Path, tmp_path: Path) -> None:
    weights, rows = {}, {}
    for case, options in {'with': (), 'without': ('default_hooks.validation_loss.max_images=0',)}.items():
        config = tiny_config(model, minibench_root, tmp_path / case, *options)
        train(config)
        weights[case] = load_weights(tmp_path / case / 'iter_4.pth')
        log = next((tmp_path / case).glob('*/vis_data/scalars.json')).read_text()
        rows[case] = [json.loads(line) for line in log.splitlines()]
    assert all(torch.equal(weights['with'][name], value) for name, value in weights['without'].items())
    assert not any(name.startswith('val_loss/') for row in rows['without'] for name in row)
    validations = [row for row in rows['with'] if 'val_loss/loss' in row]
    assert [row['step'] for row in validations] == [2, 4]
    assert all('coco/segm_mAP' in row for row in validations)
    components = {name.removeprefix('val_loss/') for name in validations[0] if name.startswith('val_loss/')}
    assert components == {name for name in rows['with'][0] if 'loss' in name}


@pytest.mark.slow
def test_an_epoch_loop_logs_each_loss_as_it_is(
    minibench_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config('mask2former', minibench_root, tmp_path)
    config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
    config.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    config.log_processor.by_epoch = config.default_hooks.logger.log_metric_by_epoch = True
    config.default_hooks.checkpoint.update(by_epoch=True, interval=1)
    seen: list[float] = []
    original = ValidationLossHook.after_val_epoch

    def recorded(self: ValidationLossHook, runner: Runner, metrics: dict[str, float]) -> None:
        original(self, runner, metrics)
        seen.append(metrics['val_loss/loss'])

    monkeypatch.setattr(ValidationLossHook, 'after_val_epoch', recorded)
    train(config)
    log = next(tmp_path.glob('*/vis_data/scalars.json')).read_text()
    rows = [json.loads(line) for line in log.splitlines() if 'val_loss/loss' in line]
    assert [row['step'] for row in rows] == [1, 2]
    assert [row['val_loss/loss'] for row in rows] == seen, 'not averaged over validations'
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    ('pipeline', 'got'),
    [
        (['Resize', 'LoadAnnotations'], r'got masks of \(128, 160\) \(height, width\) for an image of \(64, 80\)'),
        (['Resize'], 'got none'),
    ],
)
def test_annotations_must_fit_the_image(
    pipeline: list[str], got: str, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmcv.transforms import Compose

    steps = {
        'Resize': dict(type='Resize', scale=(80, 64)),
        'LoadAnnotations': dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    }
    chosen = [steps[name] for name in pipeline]
    pack = dict(type='PackDetInputs', meta_keys=('img_path', 'img_shape'))
    monkeypatch.setattr(
        runner.val_dataloader.dataset, 'pipeline', Compose([dict(type='LoadImageFromFile'), *chosen, pack])
    )
    with pytest.raises(InputError, match=rf'pipeline must load annotations before it resizes, {got}.*put LoadPolygons'):
        ValidationLossHook().before_train(runner)


@pytest.mark.parametrize(
    ('count', 'wanted', 'places'),
    [(3, 3, [0, 1, 2]), (3, 9, [0, 1, 2]), (10, 1, [5]), (10, 2, [2, 7]), (100, 4, [12, 37, 62, 87]), (0, 3, [])],
)
def test_evenly_spaced(count: int, wanted: int, places: list[int]) -> None:
    assert evenly_spaced(count, wanted) == places


def test_max_images_must_be_a_number_of_images() -> None:
    with pytest.raises(InputError, match=r'max_images must be at least 0, or None for all, got -1'):
        ValidationLossHook(max_images=-1)


def validate_in_a_process(rank: int, root: Path, folder: Path) -> None:
    """One of two processes: a validation's loader and the hook, without mmengine's launcher, which wants GPUs."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', f'file://{folder}/rendezvous', rank=rank, world_size=2)
    for model in LEAVES:
        runner = build_runner(tiny_config(model, root, folder / model))
        part = SimpleNamespace(
            model=runner.model.eval(),
            optim_wrapper=None,
            val_dataloader=runner.val_loop.dataloader,
            message_hub=MessageHub.get_instance(model),
        )
        hook, metrics = ValidationLossHook(), {}
        hook.before_val_epoch(part)
        for place, batch in enumerate(part.val_dataloader):
            hook.after_val_iter(part, place, batch)
        hook.after_val_epoch(part, metrics)
        (folder / f'{model}-{rank}.json').write_text(json.dumps(metrics))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_the_images(minibench_root: Path, tmp_path: Path) -> None:
    arguments = (minibench_root, tmp_path)
    torch.multiprocessing.start_processes(validate_in_a_process, arguments, nprocs=2, start_method='spawn')
    shares = {
        model: [json.loads((tmp_path / f'{model}-{rank}.json').read_text()) for rank in range(2)] for model in LEAVES
    }
    assert all(first and first == second for first, second in shares.values())
    # Mask2Former's mask losses are normalised across processes, Mask R-CNN's are not. The third image has no partner:
    # the sampler repeats the first beside it.
    runner = build_runner(tiny_config('mask-rcnn', minibench_root, tmp_path / 'alone'))
    assert shares['mask-rcnn'][0] == pytest.approx(losses_by_hand(runner, [0, 1, 2]), rel=1e-5)
