"""Every config file: it resolves, it is built on the CPU, and it keeps the rules of the house."""

from pathlib import Path

import pytest
from mmdet.registry import HOOKS, METRICS, MODELS, TRANSFORMS
from mmengine.registry import init_default_scope
from mmengine.visualization import Visualizer

from armbench_mmdet import configs

REPO = Path(__file__).resolve().parents[1]
LEAVES = sorted(p for p in REPO.glob('configs/*/*.py') if p.parts[-2] not in ('_base_', 'sweeps', 'shift'))


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
    heads = {name: module.num_classes for name, module in model.named_modules() if hasattr(module, 'num_classes')}
    wrong = {name: n for name, n in heads.items() if n != 2 and 'rpn_head' not in name}
    assert heads, 'the model has no head with classes'
    assert not wrong
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)
    Visualizer.get_instance(path.stem)  # the visualization hook asks for one
    for hook in config.default_hooks.values():
        HOOKS.build(hook)
    for evaluator in (config.val_evaluator, config.test_evaluator):
        METRICS.build(evaluator)
