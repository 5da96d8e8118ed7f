"""Numba kernels and threads."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba
import torch

Kernel = Callable[..., Any]
Item = TypeVar('Item')
Result = TypeVar('Result')


def compiled(kernel: Kernel, fastmath: bool | set[str] = False) -> Kernel:
    """Compile a kernel on first use, and keep the machine code on disk; a decorator.

    Kernels release the interpreter lock, so plain threads run them side by side: no second OpenMP runtime beside
    torch's, nothing for a forked data loader worker to trip over. Division by zero gives inf or NaN, as in C++.

    Args:
        kernel: The function to compile.
        fastmath: LLVM's flags for what the compiler may do to floating-point arithmetic.
    """
    options: dict[str, Any] = {'nogil': True, 'error_model': 'numpy', 'fastmath': fastmath}
    try:
        return numba.njit(cache=True, **options)(kernel)
    except RuntimeError:  # no folder that numba could write its cache to: compile in every process
        return numba.njit(**options)(kernel)


def map_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function once per item, on at most ``torch.get_num_threads()`` threads.

    Args:
        function: What releases the interpreter lock for most of its time, such as a compiled kernel.
        items: Its arguments.

    Returns:
        The results, in the order of the items.
    """
    waiting = list(items)
    threads = min(torch.get_num_threads(), len(waiting))
    if threads <= 1:
        return [function(item) for item in waiting]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, waiting))
