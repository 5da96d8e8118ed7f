"""The software, the code and the machine of a run, and the command that started it."""

import argparse
import contextlib
import math
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner

PACKAGES = ('armbench-mmdet', 'torch', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'pycocotools', 'numpy')
CODE = Path(__file__).resolve().parent  # the package's folder
_GIT_TIMEOUT_S = 20


def installed_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """The versions of the packages a result depends on; a package under another name is left out."""
    versions = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def hardware() -> dict[str, Any]:
    """The machine: ``cpu``, the ``cores`` this process may use, ``memory_mb``, and the names of the ``gpus``."""
    return {
        'cpu': _cpu_name(),
        'cores': usable_cores(),
        'memory_mb': _memory_mb(),
        'gpus': [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def usable_cores() -> int:
    """The cores this process may use: those of its affinity, and no more than its container's quota of time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # another system, or no quota
        limit, period = Path('/sys/fs/cgroup/cpu.max').read_text().split()
        cores = min(cores, math.ceil(int(limit) / int(period)))
    return max(1, cores)


def _cpu_name() -> str:
    with contextlib.suppress(OSError):  # not Linux
        if named := re.search(r'^model name\s*:\s*(.+)$', Path('/proc/cpuinfo').read_text(), re.MULTILINE):
            return named[1]
    return platform.processor() or platform.machine()


def _memory_mb() -> int | None:
    with contextlib.suppress(ValueError, OSError, AttributeError):  # not on every system
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2**20
    return None


def git_state(folder: Path = CODE) -> tuple[str | None, str]:
    """The revision of the code in a checkout, None outside one, and a patch of how the code differs from it.

    Python files that are not yet tracked are in the patch, too.
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


def command_line() -> list[str]:
    """The words of the command, ``torchrun`` included where it is the one to be typed again."""
    is_subcommand = sys.argv[0].startswith('armbench ')
    if 'TORCHELASTIC_RUN_ID' not in os.environ:
        return [*sys.argv[0].split(), *sys.argv[1:]] if is_subcommand else list(sys.orig_argv)
    nodes = os.environ.get('GROUP_WORLD_SIZE', '1')
    options = ['--standalone'] if nodes == '1' else ['--nnodes', nodes]
    script = ['-m', 'armbench_cli', sys.argv[0].split()[1]] if is_subcommand else sys.argv[:1]
    processes = os.environ.get('LOCAL_WORLD_SIZE', '1')
    return ['torchrun', *options, '--nproc-per-node', processes, *script, *sys.argv[1:]]


def resume_command(runner: Runner) -> str:
    """The command that continues a run from its latest checkpoint."""
    words = command_line()
    if sys.argv[0] != 'armbench train' and not any(word.endswith('train.py') for word in words):  # from Python
        words = ['armbench', 'train', str(runner.cfg.filename), '--work-dir', runner.work_dir]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--resume', nargs='?')
    return shlex.join([*parser.parse_known_args(words)[1], '--resume'])
