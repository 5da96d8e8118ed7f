"""Weights of other projects' models: to ours and back, tensor by tensor."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor

from armbench_mmdet.configs import load_config
from armbench_mmdet.convert import Family, State, huggingface, mask_rcnn
from armbench_mmdet.datasets.release import CLASSES
from armbench_mmdet.engine.checkpoints import bare_state, compare_weights, described, load_weights, write_checkpoint
from armbench_mmdet.errors import InputError

FAMILIES = {
    'torchvision': mask_rcnn.TORCHVISION,
    'amazon': mask_rcnn.TORCHVISION,
    'detectron2': mask_rcnn.DETECTRON2,
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
    state = bare_state(read_arrays(source), source) if source.suffix == '.pkl' else load_weights(source)
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


UNREADABLE = (pickle.PickleError, OSError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError)
"""What unpickling raises on a file that is cut off, made to do harm, or no pickle at all."""
ARRAY_PARTS = {
    ('numpy', 'dtype'),
    ('numpy', 'ndarray'),
    ('numpy.core.multiarray', '_reconstruct'),
    ('numpy._core.multiarray', '_reconstruct'),
    ('collections', 'OrderedDict'),
    ('_codecs', 'encode'),
}
"""What a pickle may name that holds nothing but arrays and plain data."""


class ArrayUnpickler(pickle.Unpickler):
    """Reads a pickle of arrays, and none that names anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle names, if arrays need it."""
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f'it holds {module}.{name}, which could run code')
        return super().find_class(module, name)


def read_arrays(path: Path) -> dict[str, dict[str, Tensor]]:
    """The arrays under ``model`` in a pickle, as detectron2's model zoo has them.

    Raises:
        InputError: The file cannot be read, or holds more than arrays and plain data.
    """
    try:
        with path.open('rb') as stream:
            arrays = ArrayUnpickler(stream).load()['model']
        return {'model': {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}}
    except UNREADABLE as error:
        raise InputError(f"weights must be a pickle of arrays under 'model', got {str(path)!r}: {error}") from error
