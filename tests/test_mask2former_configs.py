"""The Mask2Former configs differ from the zoo's in what was intended, and in nothing else."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from armbench_mmdet.configs import leaves

REPO = Path(__file__).resolve().parents[1]
ZOO = 'mmdet::mask2former/mask2former_{}.py'
SWIN_B = ZOO.format('swin-b-p4-w12-384-in21k_8xb2-lsj-50e_coco-panoptic')
LEAVES = {path.stem: path for path in sorted((REPO / 'configs/mask2former').glob('*.py'))}
ARMBENCH = [name for name in LEAVES if name.endswith('armbench-mix')]
IMAGES_A_STEP = 16


def zoo(name: str) -> Config:
    return Config.fromstring(f'_base_ = {name!r}\n', '.py')


def differences(theirs: Any, ours: Any) -> dict[str, tuple[str, str]]:
    """(theirs, ours) of every value that differs, as it is written; None where there is none."""
    before, after = leaves(theirs), leaves(ours)
    both = {n: (before.get(n, 'None'), after.get(n, 'None')) for n in {**before, **after} if not n.endswith('_scope_')}
    return {name: (one, other) for name, (one, other) in both.items() if one != other}


def written(table: dict[str, tuple[Any, Any]]) -> dict[str, tuple[str, str]]:
    """A table of differences, its values as they are written."""
    return {name: (repr(one), repr(other)) for name, (one, other) in table.items()}


THINGS_AND_STUFF = [1.0] * 133 + [0.1]
INSTANCE_OF_TWO_CLASSES = {
    'backbone.type': ('SwinTransformer', 'WindowedSwinTransformer'),
    'data_preprocessor.batch_augments.0.pad_seg': (True, False),
    'data_preprocessor.batch_augments.0.seg_pad_value': (255, None),
    'data_preprocessor.pad_seg': (True, False),
    'panoptic_fusion_head.num_stuff_classes': (53, 0),
    'panoptic_fusion_head.num_things_classes': (80, 2),
    'panoptic_fusion_head.type': ('MaskFormerFusionHead', 'BoundedMaskFormerFusionHead'),
    'panoptic_head.loss_cls.class_weight': (THINGS_AND_STUFF, [1.0, 1.0, 0.1]),
    'panoptic_head.num_stuff_classes': (53, 0),
    'panoptic_head.num_things_classes': (80, 2),
    'panoptic_head.type': ('Mask2FormerHead', 'StableMask2FormerHead'),
    'test_cfg.panoptic_on': (True, False),
}


def test_model_differs_from_the_zoo_as_intended() -> None:
    ours = Config.fromfile(REPO / 'configs/_base_/models/mask2former_swin-b-p4-w12-384.py')
    assert set(ours) == {'model', 'num_classes'}, 'a model file that brings more than the model'
    assert differences(zoo(SWIN_B).model, ours.model) == written(INSTANCE_OF_TWO_CLASSES)


def test_schedule_differs_from_the_zoo_as_intended() -> None:
    ours, theirs = Config.fromfile(REPO / 'configs/_base_/schedules/mask2former-lsj-50e.py'), zoo(SWIN_B)
    helpers = {'max_iters', 'coco_weights'}
    assert set(ours) - helpers <= set(theirs), 'a key that the zoo does not have has no effect'
    kept = {key: theirs[key] for key in ours if key not in helpers}
    intended = {
        'optim_wrapper.loss_scale': (None, 'dynamic'),
        'optim_wrapper.type': ('OptimWrapper', 'AmpOptimWrapper'),
        'param_scheduler.end': (368750, 97200),
        'param_scheduler.milestones': ([327778, 355092], [86400, 93600]),
        'train_cfg.dynamic_intervals': ([(365001, 368750)], None),
        'train_cfg.max_iters': (368750, 97200),
        'train_cfg.val_interval': (5000, 3600),
    }
    assert differences(kept, {key: ours[key] for key in kept}) == written(intended)


@pytest.mark.parametrize('name', ARMBENCH)
def test_armbench_leaves_start_from_coco_weights_and_take_sixteen_images_a_step(name: str) -> None:
    config = Config.fromfile(LEAVES[name])
    gpus, batch_size = name.split('_')[-2].split('-')[0].split('xb')
    accumulated = config.optim_wrapper.get('accumulative_counts', 1)
    assert config.train_dataloader.batch_size == int(batch_size)
    assert int(gpus) * int(batch_size) * accumulated == IMAGES_A_STEP
    assert config.auto_scale_lr.base_batch_size * accumulated == IMAGES_A_STEP
    iterations, scheduler = config.train_cfg.max_iters, config.param_scheduler
    assert iterations * int(gpus) * int(batch_size) == 97_200 * IMAGES_A_STEP
    assert scheduler.end == iterations
    assert [27 * step / iterations for step in scheduler.milestones] == [24, 26]
    assert iterations % config.train_cfg.val_interval == 0
    assert config.default_hooks.checkpoint.interval == config.train_cfg.val_interval
    assert config.optim_wrapper.type == 'AmpOptimWrapper'
    assert config.optim_wrapper.clip_grad.max_norm == 0.01
    start = 'mask2former-swin-base-coco-instance' if 'hf-instance' in name else Path(SWIN_B).stem
    assert Path(config.load_from).name.startswith(start)
    assert config.model.backbone.init_cfg is None
    assert config.model.test_cfg.max_per_image <= 2 * config.model.panoptic_head.get('num_queries', 100)


def test_the_leaves_of_two_starts_differ_only_in_the_start() -> None:
    one, other = (Config.fromfile(LEAVES[name]).to_dict() for name in ARMBENCH if '8xb2' in name)
    assert set(differences(one, other)) == {'load_from'}


def test_large_scale_jitter_is_the_zoos_with_polygons_first() -> None:
    def steps(config: Config) -> dict[str, dict]:
        pipeline = [dict(step) for step in config.train_dataloader.dataset.pipeline]
        return {step.pop('type').removeprefix('Lazy'): step for step in pipeline}

    ours, theirs = steps(Config.fromfile(LEAVES[ARMBENCH[-1]])), steps(zoo(ZOO.format('r50_8xb2-lsj-50e_coco')))
    added, left_out = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    assert added == {'LoadPolygons', 'RenderImage'}
    assert left_out == {'LoadImageFromFile', 'LoadAnnotations'}
    shared = [name for name in theirs if name in ours]
    assert shared == [name for name in ours if name in theirs]
    found = differences({name: theirs[name] for name in shared}, {name: ours[name] for name in shared})
    assert found == written({'RandomResize.resize_type': ('Resize', 'LazyResize')})
