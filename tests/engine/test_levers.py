import shutil
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPERS, init_default_scope
from torch import nn

from armbench_mmdet.engine import levers
from armbench_mmdet.engine.levers import set_levers, use_levers
from armbench_mmdet.errors import InputError


def config(**chosen: Any) -> Config:
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1))
    return Config(dict(optim_wrapper=wrapper, test_cfg=dict(type='TestLoop'), **chosen))


def backbone_and_neck(**chosen: Any) -> nn.Module:
    """Two parts of a detector with the same weights each time."""
    init_default_scope('mmdet')
    two_stages = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
    torch.manual_seed(0)
    parts = nn.Module()
    parts.backbone = MODELS.build(dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, **two_stages))
    parts.neck = MODELS.build(dict(type='FPN', in_channels=[4, 8], out_channels=8, num_outs=2))
    use_levers(parts, chosen)
    return parts.eval()


@pytest.mark.parametrize('name', ['channels_last', pytest.param('compile', marks=pytest.mark.slow)])
def test_a_lever_changes_speed_and_neither_weights_nor_outputs(name: str) -> None:
    plain, faster = backbone_and_neck(), backbone_and_neck(**{name: True})
    torch.testing.assert_close(faster.state_dict(), plain.state_dict(), rtol=0, atol=0)
    image = torch.randn(2, 3, 64, 96)
    if name == 'channels_last':
        assert faster.backbone(image)[0].is_contiguous(memory_format=torch.channels_last)
    for found, expected in zip(faster.neck(faster.backbone(image)), plain.neck(plain.backbone(image)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('chosen', 'said'),
    [(dict(chanels_last=True), 'must be channels_last and compile, got chanels_last'), (dict(compile=True), 'C\\+\\+')],
)
def test_levers_that_cannot_be_pulled(chosen: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(InputError, match=said):
        use_levers(nn.Linear(1, 1), chosen)


@pytest.mark.parametrize(
    ('gpu', 'bfloat16', 'wrapper'),
    [(True, False, 'AmpOptimWrapper'), (False, True, 'BFloat16OptimWrapper'), (False, False, None)],
)
def test_the_command_line_adds_to_what_a_config_chose(
    gpu: bool, bfloat16: bool, wrapper: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(levers, 'has_bfloat16', lambda: bfloat16)
    trained, tested = config(levers=dict(compile=True)), config()
    set_levers(trained, amp=False, channels_last=True, compiled=False, training=True)
    assert trained.to_dict() == config(levers=dict(compile=True, channels_last=True)).to_dict()
    if wrapper is None:
        with pytest.raises(InputError, match='--amp must have a GPU, or a CPU with bfloat16'):
            set_levers(trained, amp=True, channels_last=False, compiled=False, training=True)
        return
    set_levers(trained, amp=True, channels_last=False, compiled=False, training=True)
    set_levers(tested, amp=True, channels_last=False, compiled=False)
    assert (trained.optim_wrapper.type, trained.optim_wrapper.optimizer.lr) == (wrapper, 1)
    assert 'fp16' not in trained.test_cfg
    assert tested.test_cfg.fp16
    assert tested.optim_wrapper == config().optim_wrapper


def test_bfloat16_is_of_the_forward_pass_alone() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = OPTIM_WRAPPERS.build(dict(type='BFloat16OptimWrapper', optimizer=optimizer))
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        output = model(torch.ones(1, 3))
    assert output.dtype == torch.bfloat16
    wrapper.update_params(output.float().sum())
    assert model.weight.dtype == torch.float32
    assert (model.weight < before).all()
