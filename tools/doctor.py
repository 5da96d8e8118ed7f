"""Say what is installed, what works, and what to do about the rest: ``python tools/doctor.py``."""

import argparse
import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import armbench_cli

ROOT = Path(__file__).resolve().parents[1]
IN_CHECKOUT = (ROOT / 'Makefile').is_file()
STACK = ('torch', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'optuna', 'numpy')
PEERS = ('torchvision', 'transformers')  # not needed; they bring another torch that is known to work
SUBSETS = ('mix-object-tote', 'zoomed-out-tote-transfer-set', 'same-object-transfer-set')

Row = tuple[str, str, str]  # what, what was found, what to do about it ('' when all is well)


def install(name: str) -> str:
    """The remedy for a package that is not there, or does not import."""
    return 'run `make setup`' if IN_CHECKOUT else f'pip install {name}'


def pinned_versions(file: str) -> dict[str, str]:
    """Read the versions known to work together from a file of constraints; an installed package comes without it."""
    text = (ROOT / file).read_text() if IN_CHECKOUT else ''
    return dict(re.findall(r'^([\w.-]+)==(\S+)$', text, flags=re.MULTILINE))


def check_packages() -> Iterator[Row]:
    """Compare what is installed with what is known to work."""
    yield 'python', platform.python_version(), '' if sys.version_info >= (3, 10) else 'use Python 3.10 or newer'
    peers = [name for name in PEERS if find_spec(name)]
    pinned = pinned_versions('constraints.txt') | (pinned_versions('constraints-peers.txt') if peers else {})
    for name in (*STACK, *peers):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, 'not installed', install(name)
            continue
        known = pinned.get(name)
        is_known = known in (None, version.split('+')[0])
        yield name, version, '' if is_known else f'note: {known} is the version known to work'


def check_opencv() -> Iterator[Row]:
    """Check that there is one OpenCV, the headless one: two overwrite each other's files."""
    found = sorted(d.metadata['Name'] for d in metadata.distributions() if d.metadata['Name'].startswith('opencv-'))
    is_well = found == ['opencv-python-headless']
    remedy = f'pip uninstall -y {" ".join(found) or "opencv-python"}; pip install --no-deps opencv-python-headless'
    yield 'opencv', ', '.join(found) or 'not installed', '' if is_well else remedy


def check_torch() -> Iterator[Row]:
    """List the devices torch sees; a driver that does not answer is a row, whatever torch makes of it."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield 'devices', f'torch does not import: {error}', install('torch')
        return
    trouble = 'no GPU answers'
    try:
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    except (RuntimeError, AssertionError) as error:
        gpus, trouble = [], str(error).partition('\n')[0]
    yield 'devices', ', '.join(gpus) or f'CPU only, {torch.get_num_threads()} threads', ''
    if not gpus and torch.version.cuda:
        yield 'cuda', f'{trouble}; torch was built for CUDA {torch.version.cuda}', 'check the driver: nvidia-smi'


def check_operators() -> Iterator[Row]:
    """Say which implementation of mmcv's compiled operators is active."""
    try:
        from armbench_mmdet import ops
    except (ImportError, RuntimeError, ValueError) as error:
        yield 'operators', f'armbench_mmdet does not import: {error}', install('armbench-mmdet')
        return
    yield 'operators', ', '.join(f'{name}: {backend}' for name, backend in ops.active_backend().items()), ''


def check_data() -> Iterator[Row]:
    """Look for the data sets in the places the configs read, from the working directory."""
    armbench = Path(os.environ.get('ARMBENCH_ROOT', 'data/armbench-segmentation-0.1'))
    for name, root, remedy in (
        ('ARMBench', armbench, 'to train on it: download it (see README.md) and set ARMBENCH_ROOT'),
        ('minibench', Path('data/minibench'), 'made on first use, or `armbench make-minibench data/minibench`'),
    ):
        found = [subset for subset in SUBSETS if list((root / subset).glob('*.json'))]
        is_complete = len(found) == len(SUBSETS)
        yield name, f'{len(found)} of {len(SUBSETS)} subsets in {root}', '' if is_complete else f'note: {remedy}'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    return argparse.ArgumentParser(description=__doc__).parse_args()


def main(args: argparse.Namespace) -> int:
    """Print every row; 2 when something has to be done."""
    checks = (check_packages, check_opencv, check_torch, check_operators, check_data)
    rows = [row for check in checks for row in check()]
    for name, found, remedy in rows:
        mark = ' ' if not remedy or remedy.startswith('note') else '!'
        print(f'{mark} {name:18} {found}' + (f'\n{"":20} -> {remedy}' if remedy else ''))
    problems = sum(1 for *_, remedy in rows if remedy and not remedy.startswith('note'))
    print(f'{problems} problem{"s" * (problems != 1)} to mend' if problems else 'all is well')
    return 2 if problems else 0


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
