"""Data of other formats as COCO files in ARMBench's folder shape; weights of other projects' models as ours."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """A model of another project, and ours that computes the same.

    Attributes:
        config: Name of our config.
        to_ours: A state dict of theirs, which has exactly their tensors, as ours.
        from_ours: A state dict of ours as theirs.
        num_classes: What to override in the config's ``model`` for another number of classes.
        current: Of a state dict and its file: renames and adds what other versions of theirs write otherwise; it leaves
            alone what it does not know.
    """

    config: str
    to_ours: Callable[[State], State]
    from_ours: Callable[[State], State]
    num_classes: Callable[[int], dict[str, Any]]
    current: Callable[[State, Path], State]
