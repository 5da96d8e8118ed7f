"""The weights of torchvision's and detectron2's Mask R-CNN with a ResNet-50 FPN.

Those of Amazon are torchvision's, with three classes; detectron2's model zoo has NumPy arrays in a pickle.
"""

import re
from pathlib import Path
from typing import Any

import torch

from armbench_mmdet.convert import Family, State, renamed

HEAD = {
    'rpn_head.rpn_conv': ('rpn.head.conv.0.0', 'proposal_generator.rpn_head.conv'),
    'rpn_head.rpn_cls': ('rpn.head.cls_logits', 'proposal_generator.rpn_head.objectness_logits'),
    'rpn_head.rpn_reg': ('rpn.head.bbox_pred', 'proposal_generator.rpn_head.anchor_deltas'),
    'roi_head.bbox_head.shared_fcs.0': ('roi_heads.box_head.fc6', 'roi_heads.box_head.fc1'),
    'roi_head.bbox_head.shared_fcs.1': ('roi_heads.box_head.fc7', 'roi_heads.box_head.fc2'),
    'roi_head.bbox_head.fc_cls': ('roi_heads.box_predictor.cls_score', 'roi_heads.box_predictor.cls_score'),
    'roi_head.bbox_head.fc_reg': ('roi_heads.box_predictor.bbox_pred', 'roi_heads.box_predictor.bbox_pred'),
    'roi_head.mask_head.upsample': ('roi_heads.mask_predictor.conv5_mask', 'roi_heads.mask_head.deconv'),
    'roi_head.mask_head.conv_logits': ('roi_heads.mask_predictor.mask_fcn_logits', 'roi_heads.mask_head.predictor'),
}
for _i in range(4):
    HEAD |= {
        f'neck.lateral_convs.{_i}.conv': (f'backbone.fpn.inner_blocks.{_i}.0', f'backbone.fpn_lateral{_i + 2}'),
        f'neck.fpn_convs.{_i}.conv': (f'backbone.fpn.layer_blocks.{_i}.0', f'backbone.fpn_output{_i + 2}'),
        f'roi_head.mask_head.convs.{_i}.conv': (f'roi_heads.mask_head.{_i}.0', f'roi_heads.mask_head.mask_fcn{_i + 1}'),
    }
"""Our modules above the backbone, torchvision's and detectron2's; their tensors have equal names."""

TORCHVISION_NAMES = {'backbone': 'backbone.body', **{ours: theirs for ours, (theirs, _) in HEAD.items()}}
LAYERS = {'downsample.0': 'shortcut', 'downsample.1': 'shortcut.norm'}
LAYERS |= {f'conv{i}': f'conv{i}' for i in range(1, 4)} | {f'bn{i}': f'conv{i}.norm' for i in range(1, 4)}
DETECTRON2_NAMES = {
    'backbone.conv1': 'backbone.bottom_up.stem.conv1',
    'backbone.bn1': 'backbone.bottom_up.stem.conv1.norm',
    **{
        f'backbone.layer{n}.{i}.{layer}': f'backbone.bottom_up.res{n + 1}.{i}.{name}'
        for n in range(1, 5)
        for i in range(6)
        for layer, name in LAYERS.items()
    },
    **{ours: theirs for ours, (_, theirs) in HEAD.items()},
}

SCORES = 'roi_heads.box_predictor.cls_score'
BACKGROUND_ROWS = {'roi_heads.box_predictor.bbox_pred': 4, 'roi_heads.mask_predictor.mask_fcn_logits': 1}
"""torchvision puts the background first: its score, our last, and a box and a mask, which nothing reads."""

OLD_NAMES = {
    r'(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)': r'\1.0.\2',
    r'rpn\.head\.conv\.(weight|bias)': r'rpn.head.conv.0.0.\1',
    **{rf'roi_heads\.mask_head\.mask_fcn{i + 1}\.(weight|bias)': rf'roi_heads.mask_head.{i}.0.\1' for i in range(4)},
}
"""Patterns of the names before torchvision 0.13, which COCO's weights still have, and what became of them."""


def _counted(state: State) -> State:
    """With the counters of batches of our batch norm, which frozen batch norm lacks and has no use for."""
    norms = [name for name in state if name.endswith('.running_var')]
    return {**{name.replace('running_var', 'num_batches_tracked'): torch.tensor(0) for name in norms}, **state}


def torchvision_current(state: State, source: Path) -> State:
    """A state dict of any version of torchvision in the names of today's."""
    current = {}
    for name, value in state.items():
        for old, new in OLD_NAMES.items():
            name = re.sub(f'^{old}$', new, name)
        current[name] = value
    return _counted(current)


def torchvision_to_ours(state: State) -> State:
    """Theirs as ours: the background's score last, its box and its mask left out."""
    converted = {}
    for name, value in state.items():
        module = name.rpartition('.')[0]
        if module == SCORES:
            value = value.roll(-1, 0)
        value = value[BACKGROUND_ROWS.get(module, 0) :].clone() if value.dim() else value
        converted[renamed(name, {theirs: ours for ours, theirs in TORCHVISION_NAMES.items()})] = value
    return converted


def torchvision_from_ours(state: State) -> State:
    """Ours as theirs: the background's score first; its box and its mask, which nothing reads, are zeros."""
    converted = {}
    for name, value in state.items():
        name = renamed(name, TORCHVISION_NAMES)
        module = name.rpartition('.')[0]
        if module == SCORES:
            value = value.roll(1, 0)
        if rows := BACKGROUND_ROWS.get(module):
            value = torch.cat([value.new_zeros(rows, *value.shape[1:]), value])
        converted[name] = value
    return converted


def detectron2_current(state: State, source: Path) -> State:
    """A state dict without what is no weight: anchors, the mean and the deviation of colours."""
    others = ('proposal_generator.anchor_generator.', 'pixel_')
    return {name: value for name, value in state.items() if not name.startswith(others)}


def detectron2_to_ours(state: State) -> State:
    """Theirs as ours; tensors, classes and their order are equal."""
    return _counted(
        {renamed(name, {theirs: ours for ours, theirs in DETECTRON2_NAMES.items()}): state[name] for name in state}
    )


def detectron2_from_ours(state: State) -> State:
    """Ours as theirs."""
    return {
        renamed(name, DETECTRON2_NAMES): value
        for name, value in state.items()
        if not name.endswith('num_batches_tracked')
    }


def num_classes(count: int) -> dict[str, Any]:
    """What another number of classes overrides."""
    return {'roi_head': {'bbox_head': {'num_classes': count}, 'mask_head': {'num_classes': count}}}


TORCHVISION = Family(
    'mask-rcnn_r50_fpn_torchvision_armbench-mix',
    torchvision_to_ours,
    torchvision_from_ours,
    num_classes,
    torchvision_current,
)
DETECTRON2 = Family(
    'mask-rcnn_r50-caffe_fpn_1x_armbench-mix', detectron2_to_ours, detectron2_from_ours, num_classes, detectron2_current
)
