"""Opening a data set: the column index against stock ``CocoDataset``, each in a process of its own."""

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SMALL = 'small (1,000 images)'
SIZES = {_SMALL: (1_000, 10_500), 'full ARMBench (44,253 images)': (44_253, 467_225)}
"""Images and annotations of the cases."""


def rows(small: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of the small case, or of all of them, as they are measured."""
    for case in SIZES:
        if case == _SMALL or not small:
            yield from benchmark_startup({case: SIZES[case]})


def benchmark_startup(cases: dict[str, tuple[int, int]] | None = None) -> list[dict[str, Any]]:
    """Compare time and memory of opening generated annotation files.

    Args:
        cases: Case names to numbers of images and annotations; :data:`SIZES` by default.

    Returns:
        Rows ``name, case, ours, peer, unit, ratio, equal``. Times exclude imports. ``peak memory`` is the whole
        process's, imports included; ``added memory`` what a warm start adds to the imports.
    """
    from benchmarks._annotations import write_synthetic_annotations

    found: list[dict[str, Any]] = []
    for case, (num_images, num_annotations) in (cases or SIZES).items():
        with tempfile.TemporaryDirectory() as folder:
            ann_file = Path(folder) / 'train.json'
            write_synthetic_annotations(ann_file, num_images, num_annotations)
            stock = _measure('stock', ann_file)
            cold = _measure('ours', ann_file)
            warm = _measure('ours', ann_file)
        equal = stock['digest'] == cold['digest'] == warm['digest']
        for name, ours, peer, unit in (
            ('startup cold, time', cold['time_s'], stock['time_s'], 's'),
            ('startup cold, peak memory', cold['peak_mb'], stock['peak_mb'], 'MB'),
            ('startup warm, time', warm['time_s'], stock['time_s'], 's'),
            ('startup warm, added memory', warm['added_mb'], stock['added_mb'], 'MB'),
        ):
            found.append(
                {
                    'name': name,
                    'case': case,
                    'ours': ours,
                    'peer': peer,
                    'unit': unit,
                    'ratio': peer / max(ours, 1e-9),
                    'equal': equal,
                }
            )
    return found


def _measure(which: str, ann_file: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, which, str(ann_file)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _open(which: str, ann_file: Path) -> dict[str, Any]:
    from mmdet.datasets import CocoDataset

    from armbench_mmdet.datasets import ArmbenchDataset

    prefix = {'img': str(ann_file.parent)}
    filter_cfg = {'filter_empty_gt': True, 'min_size': 32}
    before_mb, start = _memory_mb(), time.perf_counter()
    if which == 'ours':
        cache_dir = ann_file.parent / 'cache'
        data_set = ArmbenchDataset(
            ann_file=str(ann_file), data_prefix=prefix, filter_cfg=filter_cfg, cache_dir=cache_dir
        )
    else:
        classes = ArmbenchDataset.METAINFO['classes']
        data_set = CocoDataset(
            ann_file=str(ann_file), data_prefix=prefix, filter_cfg=filter_cfg, metainfo={'classes': classes}
        )
    time_s, peak_mb = time.perf_counter() - start, _memory_mb()
    return {'time_s': time_s, 'peak_mb': peak_mb, 'added_mb': peak_mb - before_mb, 'digest': _digest(data_set)}


def _digest(data_set: Any) -> str:
    """One value for everything in the data set, so that two processes can be compared."""
    digest = hashlib.sha256()
    for row in range(len(data_set)):
        digest.update(json.dumps(data_set.get_data_info(row), sort_keys=True).encode())
    return digest.hexdigest()


if __name__ == '__main__':
    import armbench_mmdet  # noqa: F401  # before mmdet

    print(json.dumps(_open(sys.argv[1], Path(sys.argv[2]))))
