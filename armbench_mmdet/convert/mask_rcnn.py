"""The weights of torchvision's Mask R-CNN with a ResNet-50 FPN; those of Amazon are such, with three classes."""

import re
from pathlib import Path
from typing import Any

import torch

from armbench_mmdet.convert import Family, State

MODULES = {
    'backbone': 'backbone.body',
    'rpn_head.rpn_conv': 'rpn.head.conv.0.0',
    'rpn_head.rpn_cls': 'rpn.head.cls_logits',
    'rpn_head.rpn_reg': 'rpn.head.bbox_pred',
    'roi_head.bbox_head.shared_fcs.0': 'roi_heads.box_head.fc6',
    'roi_head.bbox_head.shared_fcs.1': 'roi_heads.box_head.fc7',
    'roi_head.bbox_head.fc_cls': 'roi_heads.box_predictor.cls_score',
    'roi_head.bbox_head.fc_reg': 'roi_heads.box_predictor.bbox_pred',
    'roi_head.mask_head.upsample': 'roi_heads.mask_predictor.conv5_mask',
    'roi_head.mask_head.conv_logits': 'roi_heads.mask_predictor.mask_fcn_logits',
    **{f'neck.lateral_convs.{i}.conv': f'backbone.fpn.inner_blocks.{i}.0' for i in range(4)},
    **{f'neck.fpn_convs.{i}.conv': f'backbone.fpn.layer_blocks.{i}.0' for i in range(4)},
    **{f'roi_head.mask_head.convs.{i}.conv': f'roi_heads.mask_head.{i}.0' for i in range(4)},
}
"""Our modules and torchvision's; their tensors have equal names."""

SCORES = 'roi_heads.box_predictor.cls_score'
BACKGROUND_ROWS = {'roi_heads.box_predictor.bbox_pred': 4, 'roi_heads.mask_predictor.mask_fcn_logits': 1}
"""torchvision puts the background first: its score, our last, and a box and a mask, which nothing reads."""

OLD_NAMES = {
    r'(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)': r'\1.0.\2',
    r'rpn\.head\.conv\.(weight|bias)': r'rpn.head.conv.0.0.\1',
    **{rf'roi_heads\.mask_head\.mask_fcn{i + 1}\.(weight|bias)': rf'roi_heads.mask_head.{i}.0.\1' for i in range(4)},
}
"""Patterns of the names before torchvision 0.13, which COCO's weights still have, and what became of them."""


def current(state: State, source: Path) -> State:
    """A state dict of any version of torchvision in the names of today's.

    It gets the counters of batches of our batch norm, which frozen batch norm lacks and has no use for.
    """
    norms = [name for name in state if name.endswith('.running_var')]
    named = {name.replace('running_var', 'num_batches_tracked'): torch.tensor(0) for name in norms}
    for name, value in state.items():
        for old, new in OLD_NAMES.items():
            name = re.sub(f'^{old}$', new, name)
        named[name] = value
    return named


def to_ours(state: State) -> State:
    """Theirs as ours: the background's score last, its box and its mask left out."""
    converted = {}
    for name, value in state.items():
        module = name.rpartition('.')[0]
        if module == SCORES:
            value = value.roll(-1, 0)
        value = value[BACKGROUND_ROWS.get(module, 0) :].clone() if value.dim() else value
        converted[_renamed(name, {theirs: ours for ours, theirs in MODULES.items()})] = value
    return converted


def from_ours(state: State) -> State:
    """Ours as theirs: the background's score first; its box and its mask, which nothing reads, are zeros."""
    converted = {}
    for name, value in state.items():
        name = _renamed(name, MODULES)
        module = name.rpartition('.')[0]
        if module == SCORES:
            value = value.roll(1, 0)
        if rows := BACKGROUND_ROWS.get(module):
            value = torch.cat([value.new_zeros(rows, *value.shape[1:]), value])
        converted[name] = value
    return converted


def _renamed(name: str, modules: dict[str, str]) -> str:
    """A tensor's name with the module that it starts with renamed; of several, the longest."""
    known = max((module for module in modules if name.startswith(f'{module}.')), key=len, default=None)
    return name if known is None else modules[known] + name.removeprefix(known)


def num_classes(count: int) -> dict[str, Any]:
    """What another number of classes overrides."""
    return {'roi_head': {'bbox_head': {'num_classes': count}, 'mask_head': {'num_classes': count}}}


FAMILY = Family('mask-rcnn_r50_fpn_torchvision_armbench-mix', to_ours, from_ours, num_classes, current)
