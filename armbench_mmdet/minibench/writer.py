"""Minibench as a folder in the shape of the release; made on first use."""

import functools
import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmengine.logging import print_log
from tqdm import tqdm

from armbench_mmdet.errors import InputError
from armbench_mmdet.files import UnwritableError, locked, write_atomically
from armbench_mmdet.minibench import scene
from armbench_mmdet.minibench.scene import MIX, SAME_OBJECT, SUBSETS
from armbench_mmdet.system import usable_cores

SPLITS = ('train', 'val', 'test')
DEFAULT_COUNTS = {(MIX, 'train'): 400, (MIX, 'val'): 60, **{(subset, 'test'): 60 for subset in SUBSETS}}
MIN_SIDE_PX, MAX_SIDE_PX = 64, 2448
VERSION = 2  # raised whenever the same seed no longer gives the same annotations; older folders are then refused

MARKER = 'minibench.json'
LOCK = '.minibench.lock'

_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92]
_NAME_DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ'


class _Job(NamedTuple):
    """One picture to make; its key is the seed and the numbers of its subset, its split and itself."""

    path: Path
    key: tuple[int, int, int, int]
    width_px: int
    height_px: int


def image_name(seed: int, subset: int, split: int, index: int) -> str:
    """A ten-character name in ARMBench's manner, such as ``5R5WBCH7ZH.jpg``; no two pictures of a subset share one."""
    number = (subset * len(SPLITS) + split) * 10**8 + index
    # The factor has no divisor in common with 36, so numbers and names correspond one to one.
    code = (number * 2_862_933_555_777_941 + seed * 3_037_000_493_001 + 1_234_567_891_011) % 36**10
    return ''.join(_NAME_DIGITS[code // 36**place % 36] for place in range(10)) + '.jpg'


def _job(folder: Path, key: tuple[int, int, int, int], width_px: int, height_px: int) -> _Job:
    """As in the release, same-object's pictures are less tall, and every eighth of the others is narrower."""
    _, subset, _, index = key
    if SUBSETS[subset] == SAME_OBJECT:
        height_px = max(MIN_SIDE_PX, round(height_px * 0.92))
    elif index % 8 == 7:
        width_px = max(MIN_SIDE_PX, round(width_px * 0.8))
    return _Job(folder / image_name(*key), key, width_px, height_px)


def _make(job: _Job) -> list[dict[str, Any]]:
    """Write a picture; returns its annotations."""
    made = scene.render_scene(np.random.default_rng(job.key), SUBSETS[job.key[1]], job.width_px, job.height_px)
    if not cv2.imwrite(str(job.path), made.image, _JPEG):
        raise UnwritableError(f'{job.path} must be where files can be written, got a failure: is the disk full?')
    return scene.scene_annotations(made)


def _check_ours(out: Path) -> None:
    """Refuse a folder that holds something which minibench did not make."""
    found = {path.name for path in out.iterdir()} - {LOCK} if out.is_dir() else {out.name} if out.exists() else set()
    if found and MARKER not in found:
        raise InputError(
            f'out must be an empty folder or one that minibench made (it would hold {MARKER}), '
            f'got {str(out)!r} with {min(found)!r} in it; choose another'
        )


def make_minibench(
    out: Path,
    *,
    counts: Mapping[tuple[str, str], int] = DEFAULT_COUNTS,
    width_px: int = 320,
    height_px: int = 256,
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Make a minibench data set in ARMBench's folder shape.

    The same arguments give the same annotations byte for byte on every machine, whatever the number of workers; picture
    ``i`` of a split does not depend on how many there are. ``minibench.json`` says whether a folder is complete; after
    an interruption the next call starts anew.

    Args:
        out: Folder to make; empty, absent, or an earlier minibench, which is replaced.
        counts: Pictures by (subset, split); a file is written for each key.
        width_px: Width of the pictures, 64…2448, like the height; same-object's are less tall, some others narrower.
        height_px: Height.
        seed: Seed, 0 or more.
        workers: Processes; None for one a CPU core. 0 or 1 makes them in this process.

    Raises:
        InputError: If an argument is out of range, or ``out`` holds something that minibench did not make.
    """
    size = {'width_px': width_px, 'height_px': height_px}
    sides = f'{MIN_SIDE_PX}…{MAX_SIDE_PX}'
    problems = [f'{key} must be {sides}, got {px}' for key, px in size.items() if not MIN_SIDE_PX <= px <= MAX_SIDE_PX]
    numbers = {'seed': seed} | {f'the count of {" ".join(key)}': count for key, count in counts.items()}
    problems += [f'{name} must be 0 or more, got {number}' for name, number in numbers.items() if number < 0]
    if problems:
        raise InputError('; '.join(problems))
    _check_ours(out)
    for subset in SUBSETS:  # what an earlier call left
        shutil.rmtree(out / subset, ignore_errors=True)
    listed = {'/'.join(key): count for key, count in counts.items()}
    marker = {'version': VERSION, 'seed': seed, **size, 'counts': listed, 'complete': False}
    _write(out / MARKER, marker)
    workers = max(1, min(usable_cores() if workers is None else workers, sum(counts.values()) // 8))
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        run = map if workers == 1 else functools.partial(pool.map, chunksize=4)
        for (subset, split), count in counts.items():
            folder, place = out / subset / 'images', (seed, SUBSETS.index(subset), SPLITS.index(split))
            folder.mkdir(parents=True, exist_ok=True)
            jobs = [_job(folder, (*place, index), width_px, height_px) for index in range(count)]
            rows = list(tqdm(run(_make, jobs), f'{subset} {split}', count, unit='img', disable=None))
            _write(out / subset / f'{split}.json', _coco(jobs, rows, subset, split))
    _write(out / MARKER, {**marker, 'complete': True})


def _coco(jobs: list[_Job], rows: list[list[dict[str, Any]]], subset: str, split: str) -> dict[str, Any]:
    owned = [{'image_id': number, **row} for number, found in enumerate(rows, 1) for row in found]
    # As in the release: same-object has one category, whose id is the tote's in the others.
    names = ('Object',) if subset == SAME_OBJECT else ('Tote', 'Object')
    return {
        'info': {'description': f'minibench {subset} {split}: procedural totes', 'version': str(VERSION)},
        'licenses': [],
        'images': [
            {'id': number, 'file_name': job.path.name, 'width': job.width_px, 'height': job.height_px}
            for number, job in enumerate(jobs, 1)
        ],
        'annotations': [{'id': number, **row} for number, row in enumerate(owned, 1)],
        'categories': [{'id': number, 'name': name, 'supercategory': ''} for number, name in enumerate(names, 1)],
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, separators=(',', ':')))


def _version(root: Path) -> int | None:
    """The version of the minibench in a folder; None where there is none, or only a part."""
    try:
        content = json.loads((root / MARKER).read_text())
    except (OSError, json.JSONDecodeError):
        return None
    whole = content['complete'] and all((root / f'{name}.json').is_file() for name in content['counts'])
    return content['version'] if whole else None


def is_complete(root: Path) -> bool:
    """Whether a folder holds a finished minibench of this version, whatever its size and seed."""
    return _version(root) == VERSION


def ensure_minibench(root: Path, train_images: int | None = None) -> None:
    """Make minibench in a folder unless a complete one is there, of whatever size, seed or number of pictures.

    Several processes may call this at once: one makes it, the others wait. ``train_images`` are those of mix, if not
    the default 400; the other splits stay the same pictures.

    Raises:
        InputError: If the folder holds something that minibench did not make, or what an older version of it made.
    """
    if is_complete(root):
        return
    if older := _version(root):
        raise InputError(
            f'minibench must be of version {VERSION}, got {older} (in {root}); make it anew with '
            f'`python tools/make_minibench.py {root} --overwrite`, and train anew: results of both do not compare'
        )
    _check_ours(root)
    with locked(root / LOCK, f'waiting for another process that makes minibench in {root}'):
        if not is_complete(root):
            counts = {**DEFAULT_COUNTS, (MIX, 'train'): train_images or DEFAULT_COUNTS[MIX, 'train']}
            print_log(f'making minibench, {sum(counts.values())} procedural pictures, in {root}', 'current')
            make_minibench(root, counts=counts)
