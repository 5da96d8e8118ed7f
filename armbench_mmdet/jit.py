"""Numba kernels and threads."""

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, overload

import numba
import torch

Kernel = Callable[..., Any]
Item = TypeVar('Item')
Result = TypeVar('Result')


@overload
def compiled(kernel: Kernel) -> Kernel: ...
@overload
def compiled(*, fastmath: bool | set[str] = False) -> Callable[[Kernel], Kernel]: ...
def compiled(kernel: Kernel | None = None, *, fastmath: bool | set[str] = False) -> Kernel | Callable[[Kernel], Kernel]:
    """Compile a kernel on first use, and keep the machine code on disk; a decorator, with or without parentheses.

    Kernels release the interpreter lock, so plain threads run them side by side: no second OpenMP runtime beside
    torch's, nothing for a forked data loader worker to trip over. Division by zero gives inf or NaN, as in C++.

    Args:
        kernel: The function to compile.
        fastmath: LLVM's flags for what the compiler may do to floating-point arithmetic.
    """
    if kernel is None:
        return functools.partial(compiled, fastmath=fastmath)
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


def run_tasks(kernel: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> None:
    """Call a kernel once per task, on threads as :func:`map_threads` does.

    Args:
        kernel: A function compiled by :func:`compiled`, which writes its result into its arguments.
        tasks: The arguments of each call. No two may write to the same place.
    """
    map_threads(lambda task: kernel(*task), tasks)
