"""Minibench as a folder in the shape of the release; made on first use."""

import contextlib
import itertools
import json
import multiprocessing
import shutil
import sys
import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log
from tqdm import tqdm

from armbench_mmdet.errors import InputError
from armbench_mmdet.files import locked, remove_drafts, write_atomically
from armbench_mmdet.minibench.outlines import categories, scene_annotations
from armbench_mmdet.minibench.scene import MIX, SAME_OBJECT, SUBSETS, ZOOMED_OUT, render_scene
from armbench_mmdet.system import usable_cores

SPLITS = ('train', 'val', 'test')
DEFAULT_COUNTS: Mapping[tuple[str, str], int] = {
    (MIX, 'train'): 400,
    (MIX, 'val'): 60,
    (MIX, 'test'): 60,
    (ZOOMED_OUT, 'test'): 60,
    (SAME_OBJECT, 'test'): 60,
}
MIN_SIDE_PX, MAX_SIDE_PX = 64, 2448
VERSION = 2
"""Raised whenever the same seed no longer gives the same annotations; older folders are then refused."""

MARKER = 'minibench.json'
LOCK = '.minibench.lock'

_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92]
_NAME_DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ'
_NAMES = 36**10


@dataclass(frozen=True)
class _Job:
    """One picture to make."""

    path: Path
    seed: int
    subset: int
    split: int
    index: int
    width_px: int
    height_px: int


def image_size(subset: str, index: int, width_px: int, height_px: int) -> tuple[int, int]:
    """Width and height: as in the release, same-object is less tall, and some images of the others are narrower."""
    if subset == SAME_OBJECT:
        return width_px, max(MIN_SIDE_PX, round(height_px * 0.92))
    return (max(MIN_SIDE_PX, round(width_px * 0.8)), height_px) if index % 8 == 7 else (width_px, height_px)


def image_name(seed: int, subset: int, split: int, index: int) -> str:
    """A ten-character name in ARMBench's manner, such as ``5R5WBCH7ZH.jpg``; no two pictures of a subset share one."""
    number = (subset * len(SPLITS) + split) * 10**8 + index
    # The factor has no divisor in common with 36, so numbers and names correspond one to one.
    code = (number * 2_862_933_555_777_941 + seed * 3_037_000_493_001 + 1_234_567_891_011) % _NAMES
    digits = ''
    for _ in range(10):
        code, digit = divmod(code, 36)
        digits += _NAME_DIGITS[digit]
    return f'{digits}.jpg'


def _make(job: _Job) -> list[dict[str, Any]]:
    rng = np.random.default_rng([job.seed, job.subset, job.split, job.index])
    scene = render_scene(rng, SUBSETS[job.subset], job.width_px, job.height_px)
    if not cv2.imwrite(str(job.path), scene.image, _JPEG):
        raise OSError(f'could not write {job.path}')
    return scene_annotations(scene)


def _made(jobs: list[_Job], workers: int) -> Generator[list[dict[str, Any]], None, None]:
    """Make pictures, yielding their annotations in the jobs' order."""
    if workers <= 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(0)
        try:
            yield from map(_make, jobs)
        finally:
            cv2.setNumThreads(threads)
        return
    # Forked workers need not import the package again, which takes longer than many pictures.
    context = multiprocessing.get_context('fork' if sys.platform == 'linux' else 'spawn')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        pool = context.Pool(workers, initializer=cv2.setNumThreads, initargs=(0,))
    with pool:
        yield from pool.imap(_make, jobs, chunksize=4)


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, separators=(',', ':')))


def _coco(jobs: list[_Job], rows: list[list[dict[str, Any]]], subset: str, split: str) -> dict[str, Any]:
    sizes = [{'file_name': job.path.name, 'width': job.width_px, 'height': job.height_px} for job in jobs]
    images = [{'id': number, **size} for number, size in enumerate(sizes, 1)]
    owned = [{'image_id': number, **row} for number, found in enumerate(rows, 1) for row in found]
    annotations = [{'id': number, **row} for number, row in enumerate(owned, 1)]
    return {
        'info': {'description': f'minibench {subset} {split}: procedural totes', 'version': str(VERSION)},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': categories(subset),
    }


def _checked(counts: Mapping[tuple[str, str], int], width_px: int, height_px: int, seed: int) -> None:
    sides = {'width_px': width_px, 'height_px': height_px}.items()
    allowed = f'{MIN_SIDE_PX}…{MAX_SIDE_PX}'
    problems = [
        f'{name} must be {allowed}, got {value!r}' for name, value in sides if not MIN_SIDE_PX <= value <= MAX_SIDE_PX
    ]
    problems += [f'seed must be 0 or more, got {seed!r}'] if seed < 0 else []
    for (subset, split), count in counts.items():
        if subset not in SUBSETS or split not in SPLITS:
            problems.append(f'counts must name a subset of {SUBSETS} and a split of {SPLITS}, got {(subset, split)!r}')
        elif not 0 <= count < 10**8:
            problems.append(f'the count of {subset} {split} must be 0 or more, got {count!r}')
    if problems:
        raise InputError('; '.join(problems))


def check_ours(out: Path) -> None:
    """Refuse a folder that holds something which minibench did not make.

    Raises:
        InputError: If it does, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f'out must be a folder, got the file {str(out)!r}')
    remove_drafts(out, MARKER)
    found = {path.name for path in out.iterdir()} - {LOCK} if out.exists() else set()
    if found and MARKER not in found:
        raise InputError(
            f'out must be an empty folder or one that minibench made (it would hold {MARKER}), '
            f'got {str(out)!r} with {min(found)!r} in it; choose another'
        )


def make_minibench(
    out: Path,
    *,
    counts: Mapping[tuple[str, str], int] | None = None,
    width_px: int = 320,
    height_px: int = 256,
    seed: int = 0,
    workers: int | None = None,
    show_progress: bool = True,
) -> None:
    """Make a minibench data set in ARMBench's folder shape.

    The same arguments give the same annotations byte for byte on every machine, whatever the number of workers;
    picture ``i`` of a split does not depend on how many there are. An interrupted call leaves no complete-looking
    folder: ``minibench.json`` says whether it is complete, and the next call starts anew.

    Args:
        out: Folder to make; empty, absent, or an earlier minibench, which is replaced.
        counts: Pictures by (subset, split); a file is written for each key. None for the default 400 / 60 / 60 of mix
            and 60 test pictures of each shift set.
        width_px: Width of the pictures, 64…2448, like the height; see :func:`image_size`.
        height_px: Height.
        seed: Seed, 0 or more.
        workers: Processes; None for one a CPU core. 0 or 1 makes them in this process.
        show_progress: Whether to show a progress bar.

    Raises:
        InputError: If an argument is out of range, or ``out`` holds something that minibench did not make.
    """
    counts = dict(DEFAULT_COUNTS if counts is None else counts)
    _checked(counts, width_px, height_px, seed)
    check_ours(out)
    out.mkdir(parents=True, exist_ok=True)
    for subset in SUBSETS:  # what an earlier call left
        shutil.rmtree(out / subset, ignore_errors=True)
    listed = {f'{subset}/{split}': count for (subset, split), count in sorted(counts.items())}
    identity = {'version': VERSION, 'seed': seed, 'width_px': width_px, 'height_px': height_px, 'counts': listed}
    _write(out / MARKER, {**identity, 'complete': False})
    jobs: dict[tuple[str, str], list[_Job]] = {}
    for subset, split in sorted(counts, key=lambda key: (SUBSETS.index(key[0]), SPLITS.index(key[1]))):
        folder = out / subset / 'images'
        folder.mkdir(parents=True, exist_ok=True)
        a, b = SUBSETS.index(subset), SPLITS.index(split)
        jobs[subset, split] = [
            _Job(folder / image_name(seed, a, b, i), seed, a, b, i, *image_size(subset, i, width_px, height_px))
            for i in range(counts[subset, split])
        ]
    flat = [job for group in jobs.values() for job in group]
    workers = min(usable_cores() if workers is None else workers, max(1, len(flat) // 8))
    shown = tqdm(total=len(flat), desc='minibench', unit='img', disable=not show_progress, smoothing=0.1)
    with contextlib.closing(_made(flat, workers)) as made, shown:
        for (subset, split), group in jobs.items():
            rows = []
            for row in itertools.islice(made, len(group)):
                rows.append(row)
                shown.update()
            _write(out / subset / f'{split}.json', _coco(group, rows, subset, split))
    _write(out / MARKER, {**identity, 'complete': True})


def _marker(root: Path) -> dict[str, Any]:
    """What a folder says of the minibench in it; nothing where there is none, or only a part."""
    try:
        content = json.loads((root / MARKER).read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    whole = content.get('complete') and all((root / f'{name}.json').is_file() for name in content.get('counts', {}))
    return content if whole else {}


def is_complete(root: Path) -> bool:
    """Whether a folder holds a finished minibench of this version, whatever its size and seed."""
    return _marker(root).get('version') == VERSION


def ensure_minibench(root: Path, train_images: int | None = None) -> None:
    """Make minibench in a folder unless a complete one is there.

    A complete minibench of another size, seed or number of pictures is left as it is; an interrupted one is made anew.
    Several processes may call this at once: one makes it, the others wait.

    Args:
        root: Folder of the data set.
        train_images: Training pictures of mix, if not the default 400; the other splits stay the same pictures.

    Raises:
        InputError: If the folder holds something that minibench did not make, or what an older version of it made.
    """
    if is_complete(root):
        return
    if older := _marker(root).get('version'):
        raise InputError(
            f'minibench must be of version {VERSION}, got {older} (in {root}); make it anew with '
            f'`python tools/make_minibench.py {root} --overwrite`, and train anew: results of both do not compare'
        )
    check_ours(root)
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / LOCK, f'waiting for another process that makes minibench in {root}'):
        if is_complete(root):
            return
        counts = dict(DEFAULT_COUNTS)
        if train_images is not None:
            counts[MIX, 'train'] = train_images
        print_log(f'making minibench, {sum(counts.values())} procedural pictures, in {root}', 'current')
        make_minibench(root, counts=counts)
