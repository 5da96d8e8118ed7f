"""The exceptions for bad input; ``armbench_cli.run_tool`` is what a command line makes of them."""

import difflib
from collections.abc import Iterable

from armbench_runtime import InputError, UnreadableImageError

__all__ = ['InputError', 'UnreadableImageError', 'nearest']


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of a message: ``; did you mean …?`` with the known name nearest to ``name``, nothing if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f'; did you mean {near[0]}?' if near else ''
