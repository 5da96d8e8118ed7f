"""The weights of detectron2's Mask R-CNN with a ResNet-50 FPN, as its model zoo has them: NumPy arrays in a pickle."""

from pathlib import Path

import torch

from armbench_mmdet.convert.torchvision import num_classes
from armbench_mmdet.convert.weights import Family, State, renamed

BLOCKS = {f'backbone.layer{n}.{i}': f'backbone.bottom_up.res{n + 1}.{i}' for n in range(1, 5) for i in range(6)}
LAYERS = {'downsample.0': 'shortcut', 'downsample.1': 'shortcut.norm'}
LAYERS |= {f'conv{i}': f'conv{i}' for i in range(1, 4)} | {f'bn{i}': f'conv{i}.norm' for i in range(1, 4)}
NAMES = {
    'backbone.conv1': 'backbone.bottom_up.stem.conv1',
    'backbone.bn1': 'backbone.bottom_up.stem.conv1.norm',
    **{f'{ours}.{layer}': f'{theirs}.{name}' for ours, theirs in BLOCKS.items() for layer, name in LAYERS.items()},
    **{f'neck.lateral_convs.{i}.conv': f'backbone.fpn_lateral{i + 2}' for i in range(4)},
    **{f'neck.fpn_convs.{i}.conv': f'backbone.fpn_output{i + 2}' for i in range(4)},
    'rpn_head.rpn_conv': 'proposal_generator.rpn_head.conv',
    'rpn_head.rpn_cls': 'proposal_generator.rpn_head.objectness_logits',
    'rpn_head.rpn_reg': 'proposal_generator.rpn_head.anchor_deltas',
    'roi_head.bbox_head.shared_fcs.0': 'roi_heads.box_head.fc1',
    'roi_head.bbox_head.shared_fcs.1': 'roi_heads.box_head.fc2',
    'roi_head.bbox_head.fc_cls': 'roi_heads.box_predictor.cls_score',
    'roi_head.bbox_head.fc_reg': 'roi_heads.box_predictor.bbox_pred',
    **{f'roi_head.mask_head.convs.{i}.conv': f'roi_heads.mask_head.mask_fcn{i + 1}' for i in range(4)},
    'roi_head.mask_head.upsample': 'roi_heads.mask_head.deconv',
    'roi_head.mask_head.conv_logits': 'roi_heads.mask_head.predictor',
}
"""Our modules and theirs; tensors, classes and their order are equal."""


def current(state: State, source: Path) -> State:
    """A state dict without what is no weight: anchors, the mean and the deviation of colours."""
    others = ('proposal_generator.anchor_generator.', 'pixel_')
    return {name: value for name, value in state.items() if not name.startswith(others)}


def to_ours(state: State) -> State:
    """Theirs as ours, with the counters of batches, which frozen batch norm has no use for."""
    theirs_to_ours = {theirs: ours for ours, theirs in NAMES.items()}
    converted = {}
    for name, value in state.items():
        name = renamed(name, theirs_to_ours)
        converted[name] = value
        if name.endswith('.running_var'):
            converted[name.replace('running_var', 'num_batches_tracked')] = torch.tensor(0)
    return converted


def from_ours(state: State) -> State:
    """Ours as theirs."""
    return {renamed(name, NAMES): value for name, value in state.items() if not name.endswith('num_batches_tracked')}


FAMILY = Family('mask-rcnn_r50-caffe_fpn_1x_armbench-mix', to_ours, from_ours, num_classes, current)
