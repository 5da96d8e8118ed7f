"""The command that started this process, and the one that continues its run."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from mmengine.runner import Runner


def command_line() -> list[str]:
    """The words of the command, ``torchrun`` included where it is the one to be typed again."""
    if 'TORCHELASTIC_RUN_ID' not in os.environ:
        return list(sys.orig_argv)
    nodes = os.environ.get('GROUP_WORLD_SIZE', '1')
    options = ['--standalone'] if nodes == '1' else ['--nnodes', nodes]
    return ['torchrun', *options, '--nproc-per-node', os.environ.get('LOCAL_WORLD_SIZE', '1'), *sys.argv]


def resume_command(runner: Runner) -> str:
    """The command that continues a run from its latest checkpoint."""
    words = command_line()
    if not any(word.endswith('train.py') for word in words):  # started from Python, by whatever command
        words = ['python', 'tools/train.py', str(runner.cfg.filename), '--work-dir', runner.work_dir]
    return shlex.join([*_without_resume(words), '--resume'])


def _without_resume(words: Sequence[str]) -> list[str]:
    """The command without ``--resume`` and the checkpoint it may name."""
    kept: list[str] = []
    after_resume = False
    for word in words:
        if word == '--resume':
            after_resume = True
        elif word.startswith('--resume=') or (after_resume and not word.startswith('-')):
            after_resume = False
        else:
            after_resume = False
            kept.append(word)
    return kept
