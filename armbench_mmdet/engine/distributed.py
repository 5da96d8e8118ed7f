"""Agreement between the processes of one run, so that all of them turn the same way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce, gather_object, get_world_size


def largest(value: int) -> int:
    """The largest of the values that the processes give; each must call this at the same point."""
    if get_world_size() == 1:
        return value
    values = torch.tensor(value, dtype=torch.int64)
    all_reduce(values, 'max')
    return int(values)


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum of a scalar over the processes, which is NaN or infinite if one of them is."""
    if get_world_size() == 1:
        return value
    summed = value.detach().float().clone()
    all_reduce(summed, 'sum')
    return summed


def gathered(share: Sequence[Any], size: int) -> list[Any]:
    """What the processes have made of a data set whose samples were dealt to them in turn, in the data set's order.

    Args:
        share: What this process has made, none of it None.
        size: The data set's length; samplers begin anew to give all processes equally much, and that is left out.

    Returns:
        Everything in the first process, nothing in the others.
    """
    shares = gather_object(list(share)) or []
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*shares))
    return [one for one in in_turn if one is not None][:size]
