"""Weights of other projects' models: to ours and back, tensor by tensor."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor

from armbench_mmdet.configs import load_config
from armbench_mmdet.datasets.release import CLASSES
from armbench_mmdet.engine.checkpoints import compare_weights, described, load_weights, write_checkpoint
from armbench_mmdet.errors import InputError
from armbench_mmdet.files import read_json

State = dict[str, Tensor]
Names = Mapping[str, str]  # patterns in the names of tensors and what each becomes, one after another
Conversion = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Family:
    """A model of another project, and ours that computes the same."""

    config: str  # the name of our config
    names: Names  # from ours to theirs; '' for a tensor that is ours alone, {q,k,v} for theirs that are stacked in ours
    values: Mapping[str, tuple[Conversion, Conversion]]  # by part of our names: ours from theirs, theirs from ours
    num_classes: tuple[str, ...]  # where our config's model has the number of classes
    current: Callable[[State, Path], State]  # of a file's: in the names of today's version; the unknown is left alone

    def to_ours(self, state: State, like: State) -> State:
        """Theirs as ours; ``like`` has the names of ours, and the values of those that are ours alone."""
        converted = dict(like)
        for name in like:
            if others := self._theirs(name):
                value = torch.cat([state[other] for other in others])
                converted[name] = self._values_of(name)[0](value)
        return converted

    def from_ours(self, state: State) -> State:
        """Ours as theirs."""
        converted: State = {}
        for name, value in state.items():
            if others := self._theirs(name):
                parts = self._values_of(name)[1](value).chunk(len(others))
                converted.update(zip(others, (part.clone() for part in parts), strict=True))
        return converted

    def _theirs(self, name: str) -> list[str]:
        """The names of their tensors that are in one of ours."""
        name = renamed(name, self.names)
        if stacked := re.search(r'\{(.+)\}', name):
            return [name.replace(stacked[0], part) for part in stacked[1].split(',')]
        return [name] if name else []

    def _values_of(self, name: str) -> tuple[Conversion, Conversion]:
        return next((both for part, both in self.values.items() if part in name), (torch.clone, torch.clone))


def renamed(name: str, rules: Names) -> str:
    """A name in which every pattern is replaced."""
    for old, new in rules.items():
        name = re.sub(old, new, name)
    return name


TORCHVISION: Names = {
    r'.*\.num_batches_tracked': '',  # frozen batch norm does not count
    r'^backbone': 'backbone.body',
    r'^neck\.lateral_convs\.(\d)\.conv': r'backbone.fpn.inner_blocks.\1.0',
    r'^neck\.fpn_convs\.(\d)\.conv': r'backbone.fpn.layer_blocks.\1.0',
    r'^rpn_head\.rpn_conv': 'rpn.head.conv.0.0',
    r'^rpn_head\.rpn_cls': 'rpn.head.cls_logits',
    r'^rpn_head\.rpn_reg': 'rpn.head.bbox_pred',
    **{rf'^roi_head\.bbox_head\.shared_fcs\.{i}': f'roi_heads.box_head.fc{6 + i}' for i in range(2)},
    r'^roi_head\.bbox_head\.fc_cls': 'roi_heads.box_predictor.cls_score',
    r'^roi_head\.bbox_head\.fc_reg': 'roi_heads.box_predictor.bbox_pred',
    r'^roi_head\.mask_head\.convs\.(\d)\.conv': r'roi_heads.mask_head.\1.0',
    r'^roi_head\.mask_head\.upsample': 'roi_heads.mask_predictor.conv5_mask',
    r'^roi_head\.mask_head\.conv_logits': 'roi_heads.mask_predictor.mask_fcn_logits',
}
OLD_TORCHVISION: Names = {
    r'^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$': r'\1.0.\2',
    r'^rpn\.head\.conv\.(weight|bias)$': r'rpn.head.conv.0.0.\1',
    **{rf'^roi_heads\.mask_head\.mask_fcn{i + 1}\.': f'roi_heads.mask_head.{i}.0.' for i in range(4)},
}
"""Before torchvision 0.13, as COCO's weights still are, and today."""


def current_torchvision(state: State, source: Path) -> State:
    """In the names of today's torchvision, without the counters of batches."""
    kept = (name for name in state if not name.endswith('.num_batches_tracked'))
    return {renamed(name, OLD_TORCHVISION): state[name] for name in kept}


# torchvision puts the background first: its score, our last, and a box and a mask, which nothing reads. These are left
# out of ours, and zeros on the way back.
TORCHVISION_MASK_RCNN = Family(
    'mask-rcnn_r50_fpn_torchvision_armbench-mix',
    TORCHVISION,
    {
        '.fc_cls.': (lambda theirs: theirs.roll(-1, 0), lambda ours: ours.roll(1, 0)),
        '.fc_reg.': (lambda theirs: theirs[4:], lambda ours: torch.cat([torch.zeros_like(ours[:4]), ours])),
        '.conv_logits.': (lambda theirs: theirs[1:], lambda ours: torch.cat([torch.zeros_like(ours[:1]), ours])),
    },
    ('roi_head.bbox_head.num_classes', 'roi_head.mask_head.num_classes'),
    current_torchvision,
)

SWIN = 'model.pixel_level_module.encoder'
QUERIES = 'model.transformer_module'
MASK_EMBED = f'{QUERIES}.decoder.mask_predictor.mask_embedder'
CLASS_WEIGHTS = 'criterion.empty_weight'
HUGGING_FACE: Names = {
    r'.*\.relative_position_index': '',  # follows from the window's size
    r'^backbone\.patch_embed\.projection': f'{SWIN}.embeddings.patch_embeddings.projection',
    r'^backbone\.patch_embed': f'{SWIN}.embeddings',
    r'^backbone\.stages': f'{SWIN}.encoder.layers',
    **{rf'^backbone\.norm{i}': f'{SWIN}.hidden_states_norms.stage{i + 1}' for i in range(4)},
    r'\.norm1\.': '.layernorm_before.',
    r'\.norm2\.': '.layernorm_after.',
    r'attn\.w_msa\.qkv': 'attention.self.{query,key,value}',
    r'attn\.w_msa\.proj': 'attention.output.dense',
    r'attn\.w_msa': 'attention.self',
    r'(\.blocks\..*)ffn\.layers\.0\.0': r'\1intermediate.dense',
    r'(\.blocks\..*)ffn\.layers\.1': r'\1output.dense',
    r'^panoptic_head\.pixel_decoder': 'model.pixel_level_module.decoder',
    r'input_convs': 'input_projections',
    r'lateral_convs\.0': 'adapter_1',
    r'output_convs\.0': 'layer_1',
    r'\.conv\.': '.0.',
    r'\.gn\.': '.1.',
    r'mask_feature': 'mask_projection',
    r'level_encoding\.weight': 'level_embed',
    r'(encoder\.layers\.\d)\.norms\.0': r'\1.self_attn_layer_norm',
    r'(encoder\.layers\.\d)\.norms\.1': r'\1.final_layer_norm',
    r'^panoptic_head\.transformer_decoder\.post_norm': f'{QUERIES}.decoder.layernorm',
    r'^panoptic_head\.transformer_decoder': f'{QUERIES}.decoder',
    r'self_attn\.attn\.in_proj_': 'self_attn.{q,k,v}_proj.',
    r'(self|cross)_attn\.attn': r'\1_attn',
    r'ffn\.layers\.0\.0': 'fc1',
    r'ffn\.layers\.1': 'fc2',
    r'norms\.0': 'cross_attn_layer_norm',
    r'norms\.1': 'self_attn_layer_norm',
    r'norms\.2': 'final_layer_norm',
    **{rf'^panoptic_head\.mask_embed\.{2 * i}': f'{MASK_EMBED}.{i}.0' for i in range(3)},
    r'^panoptic_head\.query_embed': f'{QUERIES}.queries_embedder',
    r'^panoptic_head\.query_feat': f'{QUERIES}.queries_features',
    r'^panoptic_head\.level_embed': f'{QUERIES}.level_embed',
    r'^panoptic_head\.cls_embed\.weight': 'class_predictor.weight',
    r'^panoptic_head\.cls_embed\.bias': f'{{class_predictor.bias,{CLASS_WEIGHTS}}}',
}
NOT_USED = re.compile(rf'^{SWIN}\.(swin\.)?layernorm\.|\.relative_position_index$')  # an unreached norm; the index


class _HuggingFaceConfig(msgspec.Struct):
    id2label: dict[int, str] = {}


def current_hugging_face(state: State, source: Path) -> State:
    """Without what nothing uses, its classes in our order.

    Raises:
        InputError: ``config.json`` beside the file names other classes than two of ours.
    """
    kept = {name: value for name, value in state.items() if not NOT_USED.search(name)}
    config = source.parent / 'config.json'
    labels: dict[int, str] = {}
    if config.is_file():
        labels = read_json(config, _HuggingFaceConfig, 'config.json must be as transformers writes it').id2label
    names = [labels[number].lower() for number in sorted(labels)]
    if len(names) != len(CLASSES) or all(re.fullmatch(r'label_\d+', name) for name in names):
        return kept
    if set(names) != set(CLASSES):
        raise InputError(
            f'id2label must name {" and ".join(CLASSES)}, got {" and ".join(names)} (in {config}); rename them'
        )
    order = [*(names.index(name) for name in CLASSES), len(CLASSES)]
    return {name: value[order] if name.startswith('class_predictor.') else value for name, value in kept.items()}


# The four patches that become one stand in another order there. Their loss keeps the weights of classes, which nothing
# else reads: they are the default's.
HF_MASK2FORMER = Family(
    'mask2former_swin-b-p4-w12-384-in21k_hf-instance_8xb2-lsj-50e_armbench-mix',
    HUGGING_FACE,
    {
        '.downsample.': (
            lambda theirs: theirs.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :].transpose(-1, -2).flatten(-2),
            lambda ours: ours.unflatten(-1, (-1, 4)).transpose(-1, -2)[..., [0, 2, 1, 3], :].flatten(-2),
        ),
        '.cls_embed.bias': (
            lambda theirs: theirs.chunk(2)[0],
            lambda ours: torch.cat([ours, torch.tensor([1.0] * (len(ours) - 1) + [0.1])]),
        ),
    },
    ('panoptic_head.num_things_classes', 'panoptic_fusion_head.num_things_classes'),
    current_hugging_face,
)

FAMILIES = {'torchvision': TORCHVISION_MASK_RCNN, 'amazon': TORCHVISION_MASK_RCNN, 'hf-mask2former': HF_MASK2FORMER}


def convert_weights(
    family: str, source: Path, out: Path, num_classes: int | None = None, reverse: bool = False
) -> list[str]:
    """Convert a file of weights, ours into theirs if ``reverse``; returns the names of the tensors written.

    Nothing in the file can run code. Ours is a checkpoint as mmengine writes it, theirs a bare state dict.
    ``num_classes`` counts the file's classes without the background, if they are not tote and object: weights to
    fine-tune.

    Raises:
        InputError: The file cannot be read safely, or its tensors are not those of the family with so many classes.
    """
    row = FAMILIES[family]
    ours = our_tensors(row, num_classes)
    state = load_weights(source)
    state = state if reverse else row.current(state, source)
    differences = compare_weights(state, ours if reverse else row.from_ours(ours))
    if differences:
        whose = f'{row.config} of this project' if reverse else family
        raise InputError(
            f'weights must be those of {whose} with {num_classes or len(CLASSES)} classes, got other tensors: '
            f'{described(differences)} (in {source}). Is it of another family? For other classes give --num-classes.'
        )
    converted = row.from_ours(state) if reverse else row.to_ours(state, ours)
    classes = list(CLASSES) if num_classes is None else [str(number) for number in range(1, num_classes + 1)]
    meta = {'dataset_meta': {'classes': classes}}
    write_checkpoint(out, converted if reverse else {'meta': meta, 'state_dict': converted})
    return list(converted)


def our_tensors(family: Family, num_classes: int | None = None) -> State:
    """The tensors of our model of a family, freshly made: for their names and shapes."""
    config = load_config(family.config)
    if num_classes is not None:
        config.merge_from_dict({f'model.{key}': num_classes for key in family.num_classes})
    init_default_scope('mmdet')
    return dict(MODELS.build(config.model).state_dict())
