"""Weights of other projects' models: to ours and back, tensor by tensor."""

from pathlib import Path

from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from armbench_mmdet.configs import load_config
from armbench_mmdet.convert import Family, State, huggingface, mask_rcnn
from armbench_mmdet.datasets.release import CLASSES
from armbench_mmdet.engine.checkpoints import compare_weights, described, load_weights, write_checkpoint
from armbench_mmdet.errors import InputError

FAMILIES = {
    'torchvision': mask_rcnn.FAMILY,
    'amazon': mask_rcnn.FAMILY,
    'hf-mask2former': huggingface.FAMILY,
}


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
    converted = row.from_ours(state) if reverse else row.to_ours(state)
    classes = list(CLASSES) if num_classes is None else [str(number) for number in range(1, num_classes + 1)]
    meta = {'dataset_meta': {'classes': classes}}
    write_checkpoint(out, converted if reverse else {'meta': meta, 'state_dict': converted})
    return list(converted)


def our_tensors(family: Family, num_classes: int | None = None) -> State:
    """The tensors of our model of a family, freshly made: for their names and shapes."""
    config = load_config(family.config)
    if num_classes is not None:
        config.merge_from_dict({'model': family.num_classes(num_classes)})
    init_default_scope('mmdet')
    return dict(MODELS.build(config.model).state_dict())
