"""What a run depends on besides its config and its data: packages, code, machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    *('armbench-mmdet', 'torch', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection'),
    *('faster-coco-eval', 'pycocotools', 'numpy'),
)
_CODE = Path(__file__).resolve().parent
_GIT_TIMEOUT_S = 20


def installed_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """The versions of the packages a result depends on; a package under another name is left out."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def hardware() -> dict[str, Any]:
    """The machine: ``cpu``, the ``cores`` this process may use, ``memory_mb``, and the names of the ``gpus``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return {
        'cpu': _cpu_name(),
        'cores': cores,
        'memory_mb': _memory_mb(),
        'gpus': [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def _cpu_name() -> str:
    try:
        named = re.search(r'^model name\s*:\s*(.+)$', Path('/proc/cpuinfo').read_text(), re.MULTILINE)
    except OSError:  # not Linux
        named = None
    return named[1] if named else platform.processor() or platform.machine()


def _memory_mb() -> int | None:
    try:
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2**20
    except (ValueError, OSError, AttributeError):
        return None


def git_state(folder: Path = _CODE) -> tuple[str | None, str]:
    """The revision of the code, and how the code differs from it.

    Args:
        folder: A folder of the checkout; this package's by default.

    Returns:
        The commit, None outside a checkout or without git; and a patch of what was changed since, Python files that
        are not yet tracked included, empty for a clean checkout.
    """
    try:
        root = _git(folder, 'rev-parse', '--show-toplevel').strip()
        revision = _git(folder, 'rev-parse', 'HEAD').strip()
        patch = _git(Path(root), 'diff', '--binary', 'HEAD')
        for name in _git(Path(root), 'ls-files', '--others', '--exclude-standard', '-z', '*.py').split('\0'):
            patch += _git(Path(root), 'diff', '--no-index', '--', os.devnull, name, statuses=(0, 1)) if name else ''
    except (OSError, subprocess.SubprocessError):
        return None, ''
    return revision, patch


def _git(folder: Path, *arguments: str, statuses: tuple[int, ...] = (0,)) -> str:
    command = ['git', '-C', str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, timeout=_GIT_TIMEOUT_S, check=False)
    if done.returncode not in statuses:
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout.decode(errors='replace')
