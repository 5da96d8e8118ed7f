"""Configs are built, keep the rules, are found, read and changed; how Mask2Former's differ from the zoo's."""

import re
from pathlib import Path
from typing import Any

import pytest
from mmdet.registry import HOOKS, METRICS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.visualization import Visualizer

from armbench_mmdet import configs
from armbench_mmdet.errors import InputError

REPO = Path(__file__).resolve().parents[1]
LEAVES = sorted(p for p in REPO.glob('configs/*/*.py') if p.parts[-2] not in ('_base_', 'sweeps', 'shift'))
LEAF = REPO / 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_leaf_is_built_and_keeps_the_contracts(path: Path) -> None:
    config = configs.load_config(path)
    assert len(path.read_text().splitlines()) <= 40
    assert config.default_hooks.num_class_check.type == 'NumClassCheckHook'
    assert 'armbench_mmdet' in config.custom_imports.imports
    assert config.runner_type == 'ArmbenchRunner'
    for dataset in configs.datasets(config):
        assert dataset.subset == 'mix-object-tote'
        assert 'ann_file' not in dataset, 'subsets are chosen by name alone'
    assert (config.val_dataloader.dataset.split, config.test_dataloader.dataset.split) == ('val', 'test')
    init_default_scope('mmdet')
    config.model.backbone.init_cfg = None  # no network in tests
    model = MODELS.build(config.model)
    heads = {name: part for name, part in model.named_modules() if hasattr(part, 'num_classes') and name != 'rpn_head'}
    assert {head.num_classes for head in heads.values()} == {2}, heads.keys()
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)
    Visualizer.get_instance(path.stem)  # the visualization hook asks for one
    for hook in config.default_hooks.values():
        HOOKS.build(hook)
    for evaluator in (config.val_evaluator, config.test_evaluator):
        METRICS.build(evaluator)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'config must be an existing file'),
        ('model = dict(', 'config must load'),
        ("_base_ = './nowhere.py'", 'nowhere.py'),
        ("_base_ = 'mmdet::mask_rcnn/nowhere.py'", 'nowhere.py'),
        ("custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)", 'no_such_module'),
    ],
)
def test_bad_config_file_is_one_clear_error(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / 'experiment.py'
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        configs.load_config(file)
    assert 'experiment.py' in str(caught.value)


@pytest.mark.parametrize('name', [LEAF.stem, LEAF.name])
def test_a_bare_name_is_found_here_first_and_then_in_the_package(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert configs.find_config(name) == LEAF
    own = tmp_path / 'configs' / 'mine' / LEAF.name
    own.parent.mkdir(parents=True)
    own.write_text('a = 1\n')
    assert configs.load_config(name).a == 1
    with pytest.raises(InputError, match='which no config is named either'):
        configs.find_config('default_runtime')
    with pytest.raises(InputError, match=f'did you mean .*{LEAF.name}'):
        configs.find_config('configs/mask_rcnn/mask-rcnn_r18-w32_fpn_minibench.py')


def test_differences_are_leaves_and_tell_types_apart() -> None:
    found = configs.differences({'a': {'b': 1, 'c': 2}, 'd': [1]}, {'a': {'b': 1.0, 'c': 2}, 'd': (1,), 'e': {}})
    expected = [('a.b', '1', '1.0'), ('d', '[1]', '(1,)'), ('e', '–', 'dict()')]
    assert [(one.key, one.base, one.run) for one in found] == expected


def test_option_pairs_follow_mmengine() -> None:
    read = configs.parse_options(['a.b=1', 'c=[1,2]', 'd="[(1,2),(3,4)]"', 'e=x=y', 'f=None', 'g=true'])
    assert read == {'a.b': 1, 'c': [1, 2], 'd': [(1, 2), (3, 4)], 'e': 'x=y', 'f': None, 'g': True}
    assert configs.parse_options(None) == {}
    with pytest.raises(InputError, match="must be pairs key=value, got 'lr'"):
        configs.parse_options(['lr', 'a=1'])


def test_options_override_and_new_keys_are_reported(capsys: pytest.CaptureFixture) -> None:
    config = configs.load_config(LEAF, {'optim_wrapper.optimizer.lr': 0.5, 'train_dataloader.timeout': 3, 'own': 1})
    assert config.optim_wrapper.optimizer.lr == 0.5
    printed = ''.join(capsys.readouterr())
    assert "creates the key 'train_dataloader.timeout'" in printed
    assert "creates the key 'own'" in printed
    assert 'optimizer.lr' not in printed


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('train_dataloader.batchsize', r'got .*batchsize.* did you mean batch_size\?'),
        ('optim_wraper.optimizer.lr', r'got .*optim_wraper.* did you mean optim_wrapper\?'),
        ('train_dataloader.dataset.pipeline.3.typ', r'got .*3\.typ.* did you mean type\?'),
        ('train_pipeline.9.type', '--cfg-options must fit the config'),
    ],
)
def test_a_key_that_does_not_fit_is_refused(key: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        configs.load_config(LEAF, {key: 1})


def test_loaders_are_looked_at_through_wrappers() -> None:
    config = configs.load_config(LEAF)
    loader = config.train_dataloader
    loader.dataset = dict(type='RepeatDataset', times=2, dataset=loader.dataset)
    configs.set_data_root(config, 'elsewhere')
    assert [dataset.data_root for dataset in configs.datasets(config)] == ['elsewhere'] * 3
    assert configs.training_subsets(config) == 'mix-object-tote'
    one = loader.dataset.dataset
    loader.dataset = dict(type='ConcatDataset', datasets=[one, {**one, 'subset': 'other', 'data_root': 'there'}])
    assert configs.training_subsets(config) == 'mix-object-tote + other'
    with pytest.raises(InputError, match=r'must be left out where train_dataloader joins .* elsewhere, there'):
        configs.set_data_root(config, 'here')


def test_work_dir_comes_from_the_argument_then_the_config_then_its_name() -> None:
    config = configs.load_config(LEAF)
    default = f'work_dirs/{LEAF.stem}'
    for argument, in_config, expected in (('a', 'written', 'a'), (None, 'written', 'written'), (None, None, default)):
        config.work_dir = in_config
        assert configs.set_work_dir(config, argument) == Path(expected)
        assert config.work_dir == expected


ZOO = 'mmdet::mask2former/mask2former_{}.py'
SWIN_B = ZOO.format('swin-b-p4-w12-384-in21k_8xb2-lsj-50e_coco-panoptic')
MASK2FORMER = {path.stem: path for path in sorted((REPO / 'configs/mask2former').glob('*.py'))}
ARMBENCH = [name for name in MASK2FORMER if name.endswith('armbench-mix')]
IMAGES_A_STEP = 16


def zoo(name: str) -> Config:
    return Config.fromstring(f'_base_ = {name!r}\n', '.py')


def differences(theirs: Any, ours: Any) -> dict[str, tuple[str, str]]:
    """(theirs, ours) of every value that differs, as it is written; None where there is none."""
    before, after = configs.leaves(theirs), configs.leaves(ours)
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
    config = Config.fromfile(MASK2FORMER[name])
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
    one, other = (Config.fromfile(MASK2FORMER[name]).to_dict() for name in ARMBENCH if '8xb2' in name)
    assert set(differences(one, other)) == {'load_from'}


def test_large_scale_jitter_is_the_zoos_with_polygons_first() -> None:
    def steps(config: Config) -> dict[str, dict]:
        pipeline = [dict(step) for step in config.train_dataloader.dataset.pipeline]
        return {step.pop('type').removeprefix('Lazy'): step for step in pipeline}

    ours, theirs = steps(Config.fromfile(MASK2FORMER[ARMBENCH[-1]])), steps(zoo(ZOO.format('r50_8xb2-lsj-50e_coco')))
    added, left_out = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    assert added == {'LoadPolygons', 'RenderImage'}
    assert left_out == {'LoadImageFromFile', 'LoadAnnotations'}
    shared = [name for name in theirs if name in ours]
    assert shared == [name for name in ours if name in theirs]
    found = differences({name: theirs[name] for name in shared}, {name: ours[name] for name in shared})
    assert found == written({'RandomResize.resize_type': ('Resize', 'LazyResize')})
