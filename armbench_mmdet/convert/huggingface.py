"""The weights of Hugging Face's ``Mask2FormerForUniversalSegmentation`` with a Swin backbone."""

import functools
import json
import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from armbench_mmdet.convert import Family, State
from armbench_mmdet.datasets.release import CLASSES
from armbench_mmdet.errors import InputError

SWIN = 'model.pixel_level_module.encoder'
PIXELS = 'model.pixel_level_module.decoder'
QUERIES = 'model.transformer_module'
BLOCK, THEIR_BLOCK = 'backbone.stages.#.blocks.#', f'{SWIN}.encoder.layers.#.blocks.#'
ENCODER, THEIR_ENCODER = 'panoptic_head.pixel_decoder.encoder.layers.#', f'{PIXELS}.encoder.layers.#'
DECODER, THEIR_DECODER = 'panoptic_head.transformer_decoder.layers.#', f'{QUERIES}.decoder.layers.#'

NAMES: dict[str, tuple[str, ...]] = {
    'backbone.patch_embed.projection.': (f'{SWIN}.embeddings.patch_embeddings.projection.',),
    'backbone.patch_embed.norm.': (f'{SWIN}.embeddings.norm.',),
    f'{BLOCK}.norm1.': (f'{THEIR_BLOCK}.layernorm_before.',),
    f'{BLOCK}.norm2.': (f'{THEIR_BLOCK}.layernorm_after.',),
    f'{BLOCK}.attn.w_msa.relative': (f'{THEIR_BLOCK}.attention.self.relative',),
    f'{BLOCK}.attn.w_msa.qkv.': tuple(f'{THEIR_BLOCK}.attention.self.{part}.' for part in ('query', 'key', 'value')),
    f'{BLOCK}.attn.w_msa.proj.': (f'{THEIR_BLOCK}.attention.output.dense.',),
    f'{BLOCK}.ffn.layers.0.0.': (f'{THEIR_BLOCK}.intermediate.dense.',),
    f'{BLOCK}.ffn.layers.1.': (f'{THEIR_BLOCK}.output.dense.',),
    'backbone.stages.#.downsample.': (f'{SWIN}.encoder.layers.#.downsample.',),
    **{f'backbone.norm{i}.': (f'{SWIN}.hidden_states_norms.stage{i + 1}.',) for i in range(4)},
    'panoptic_head.pixel_decoder.input_convs.#.conv.': (f'{PIXELS}.input_projections.#.0.',),
    'panoptic_head.pixel_decoder.input_convs.#.gn.': (f'{PIXELS}.input_projections.#.1.',),
    'panoptic_head.pixel_decoder.lateral_convs.0.conv.': (f'{PIXELS}.adapter_1.0.',),
    'panoptic_head.pixel_decoder.lateral_convs.0.gn.': (f'{PIXELS}.adapter_1.1.',),
    'panoptic_head.pixel_decoder.output_convs.0.conv.': (f'{PIXELS}.layer_1.0.',),
    'panoptic_head.pixel_decoder.output_convs.0.gn.': (f'{PIXELS}.layer_1.1.',),
    'panoptic_head.pixel_decoder.mask_feature.': (f'{PIXELS}.mask_projection.',),
    'panoptic_head.pixel_decoder.level_encoding.weight': (f'{PIXELS}.level_embed',),
    f'{ENCODER}.self_attn.': (f'{THEIR_ENCODER}.self_attn.',),
    f'{ENCODER}.ffn.layers.0.0.': (f'{THEIR_ENCODER}.fc1.',),
    f'{ENCODER}.ffn.layers.1.': (f'{THEIR_ENCODER}.fc2.',),
    f'{ENCODER}.norms.0.': (f'{THEIR_ENCODER}.self_attn_layer_norm.',),
    f'{ENCODER}.norms.1.': (f'{THEIR_ENCODER}.final_layer_norm.',),
    f'{DECODER}.self_attn.attn.in_proj_': tuple(f'{THEIR_DECODER}.self_attn.{part}_proj.' for part in 'qkv'),
    f'{DECODER}.self_attn.attn.out_proj.': (f'{THEIR_DECODER}.self_attn.out_proj.',),
    f'{DECODER}.cross_attn.attn.': (f'{THEIR_DECODER}.cross_attn.',),
    f'{DECODER}.ffn.layers.0.0.': (f'{THEIR_DECODER}.fc1.',),
    f'{DECODER}.ffn.layers.1.': (f'{THEIR_DECODER}.fc2.',),
    f'{DECODER}.norms.0.': (f'{THEIR_DECODER}.cross_attn_layer_norm.',),
    f'{DECODER}.norms.1.': (f'{THEIR_DECODER}.self_attn_layer_norm.',),
    f'{DECODER}.norms.2.': (f'{THEIR_DECODER}.final_layer_norm.',),
    'panoptic_head.transformer_decoder.post_norm.': (f'{QUERIES}.decoder.layernorm.',),
    **{
        f'panoptic_head.mask_embed.{2 * i}.': (f'{QUERIES}.decoder.mask_predictor.mask_embedder.{i}.0.',)
        for i in range(3)
    },
    'panoptic_head.query_embed.': (f'{QUERIES}.queries_embedder.',),
    'panoptic_head.query_feat.': (f'{QUERIES}.queries_features.',),
    'panoptic_head.level_embed.': (f'{QUERIES}.level_embed.',),
    'panoptic_head.cls_embed.': ('class_predictor.',),
}
"""How our names begin, and theirs; ``#`` is a number. Several of theirs are stacked in one of ours."""

IN_MEMORY = {
    rf'^{SWIN}\.swin\.e': f'{SWIN}.e',
    r'\.attention\.q_proj\.': '.attention.self.query.',
    r'\.attention\.k_proj\.': '.attention.self.key.',
    r'\.attention\.v_proj\.': '.attention.self.value.',
    r'\.attention\.o_proj\.': '.attention.output.dense.',
    r'\.attention\.relative_position_bias\.': '.attention.self.',
    r'\.mlp\.fc1\.': '.intermediate.dense.',
    r'\.mlp\.fc2\.': '.output.dense.',
}
"""Names in a model of transformers 5, and in files of every version."""

NOT_USED = re.compile(rf'^{SWIN}\.(swin\.)?layernorm\.|\.relative_position_index$')
"""A norm that a backbone does not reach, and an index that follows from the window's size."""

CLASS_WEIGHTS = 'criterion.empty_weight'
INDEX, TABLE = 'relative_position_index', 'relative_position_bias_table'
GENERIC = re.compile(r'LABEL_\d+')


def current(state: State, source: Path) -> State:
    """A state dict in the names of files, without what nothing uses, its classes in our order.

    Raises:
        InputError: ``config.json`` beside the file names other classes than two of ours.
    """
    kept = {}
    for name, value in state.items():
        if not NOT_USED.search(name):
            for old, new in IN_MEMORY.items():
                name = re.sub(old, new, name)
            kept[name] = value
    config = source.parent / 'config.json'
    labels = json.loads(config.read_text()).get('id2label', {}) if config.is_file() else {}
    names = [str(labels[key]) for key in sorted(labels, key=int)]
    if len(names) == len(CLASSES) and not all(GENERIC.fullmatch(name) for name in names):
        names = [name.lower() for name in names]
        if set(names) != set(CLASSES):
            raise InputError(
                f'id2label must name {" and ".join(CLASSES)}, got {" and ".join(names)} (in {config}); rename them'
            )
        order = [*(names.index(name) for name in CLASSES), len(CLASSES)]
        for name in ('class_predictor.weight', 'class_predictor.bias'):
            if name in kept:
                kept[name] = kept[name][order]
    return kept


def to_ours(state: State) -> State:
    """Theirs as ours: queries, keys and values stacked, patches in another order, the index of the bias made anew."""
    begins = [(theirs, ours, place) for ours, row in NAMES.items() for place, theirs in enumerate(row)]
    stacked: dict[str, dict[int, Tensor]] = {}
    for name in state.keys() - {CLASS_WEIGHTS}:
        theirs, ours, place = next(row for row in begins if _pattern(row[0]).match(name))
        stacked.setdefault(_renamed(name, theirs, ours), {})[place] = state[name]
    converted = {}
    for name, parts in stacked.items():
        value = torch.cat([parts[place] for place in sorted(parts)])
        if '.downsample.' in name:
            value = value.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :].transpose(-1, -2).flatten(-2).contiguous()
        if name.endswith(TABLE):
            converted[name.replace(TABLE, INDEX)] = position_index((round(len(value) ** 0.5) + 1) // 2)
        converted[name] = value
    return converted


def from_ours(state: State) -> State:
    """Ours as theirs; the weights of classes, which only their loss reads, are the default's."""
    converted = {}
    for name, value in state.items():
        if name.endswith(INDEX):
            continue
        if '.downsample.' in name:
            value = value.unflatten(-1, (-1, 4)).transpose(-1, -2)[..., [0, 2, 1, 3], :].flatten(-2)
        ours, row = next(row for row in NAMES.items() if _pattern(row[0]).match(name))
        for theirs, part in zip(row, value.chunk(len(row)), strict=True):
            converted[_renamed(name, ours, theirs)] = part.clone()
    classes = len(state['panoptic_head.cls_embed.bias']) - 1
    return {**converted, CLASS_WEIGHTS: torch.tensor([1.0] * classes + [0.1])}


def position_index(window: int) -> Tensor:
    """For any two places in a window, the row of their bias, ``(window², window²) int64``."""
    steps = (torch.arange(window)[:, None] * (2 * window - 1) + torch.arange(window)).flatten()
    return steps[:, None] - steps + steps[-1]


def num_classes(count: int) -> dict[str, Any]:
    """What another number of classes overrides."""
    return {
        'panoptic_head': {'num_things_classes': count, 'loss_cls': {'class_weight': [1.0] * count + [0.1]}},
        'panoptic_fusion_head': {'num_things_classes': count},
    }


@functools.cache
def _pattern(begin: str) -> re.Pattern[str]:
    return re.compile(re.escape(begin).replace(r'\#', r'(\d+)'))


def _renamed(name: str, old: str, new: str) -> str:
    """A tensor's name, which begins as ``old`` says, in the words of ``new``."""
    found = cast('re.Match[str]', _pattern(old).match(name))
    return new.replace('#', '{}').format(*found.groups()) + name[found.end() :]


FAMILY = Family(
    'mask2former_swin-b-p4-w12-384-in21k_hf-instance_8xb2-lsj-50e_armbench-mix',
    to_ours,
    from_ours,
    num_classes,
    current,
)
