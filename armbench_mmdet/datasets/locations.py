"""Where the data lie: the release's folders, and what to say when they are not there."""

from __future__ import annotations

import os
from pathlib import Path

from armbench_mmdet.errors import InputError

SUBSETS = ('mix-object-tote', 'zoomed-out-tote-transfer-set', 'same-object-transfer-set')
SPLITS = ('train', 'val', 'test')
IMAGE_FOLDER = 'images'
DEFAULT_ROOT = Path('data/armbench-segmentation-0.1')

_HOW_TO_GET = (
    'download armbench-segmentation-0.1.tar.gz from http://armbench.s3-website-us-east-1.amazonaws.com/ and unpack it '
    'there, or name its folder with --data-root or the ARMBENCH_ROOT environment variable; without it, '
    '`python tools/make_minibench.py data/minibench` makes a stand-in'
)


def resolve_data_root(data_root: Path | str | None = None) -> Path:
    """The data set's folder: the argument, then ``ARMBENCH_ROOT``, then ``data/armbench-segmentation-0.1``."""
    return Path(data_root or os.environ.get('ARMBENCH_ROOT') or DEFAULT_ROOT).expanduser()


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return the value if it is one of the choices.

    Raises:
        InputError: It is none of them.
    """
    if value not in choices:
        raise InputError(f'{name} must be one of {", ".join(choices)}, got {value!r}')
    return value


def require_file(path: Path) -> Path:
    """Return the path of an annotation file that exists.

    Raises:
        InputError: It does not; the message says which of its folders is the first missing one.
    """
    if path.is_file():
        return path
    _raise_missing('annotation file', path)
    return path


def require_folder(path: Path) -> Path:
    """Return the path of an image folder that exists.

    Raises:
        InputError: It does not.
    """
    if path.is_dir():
        return path
    _raise_missing('image folder', path)
    return path


def _raise_missing(what: str, path: Path) -> None:
    missing = path
    while not missing.parent.exists() and missing.parent != missing:
        missing = missing.parent
    where = f'no {missing} in {missing.parent.resolve()}' if not missing.exists() else f'{missing} is something else'
    raise InputError(f'{what} must exist, got {str(path)!r} ({where}); {_HOW_TO_GET}')
