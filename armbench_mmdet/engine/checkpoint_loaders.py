"""mmengine's ways to a checkpoint, every one through :func:`~armbench_mmdet.engine.weights.read_checkpoint`.

mmengine loads weights by the scheme of their name: for ``load_from``, for a run that resumes, for a pretrained backbone
(``init_cfg``) and in mmdet's own tools. Its loaders fall back to unpickling whatever a file holds, which runs the code
in it; these here take their place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mmengine
import torch
from mmengine.dist import barrier, get_rank
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import get_external_models, get_torchvision_models

from armbench_mmdet.engine.weights import read_checkpoint
from armbench_mmdet.errors import InputError


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a local file."""
    return read_checkpoint(Path(filename).expanduser(), map_location)


def load_from_http(url: str, map_location: Any = None) -> Any:
    """Read a file of the web, which is downloaded once, to torch's folder.

    Raises:
        InputError: It cannot be downloaded, or is no safe checkpoint.
    """
    file = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)
    for turn in (get_rank() == 0, get_rank() != 0):  # the others find it there, unless they are another machine
        if turn and not file.is_file():
            _download(url, file)
        barrier()
    return read_checkpoint(file, map_location)


def _download(url: str, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file))
    except OSError as error:
        raise InputError(
            f'checkpoint must be there or be downloaded, got {error} (from {url}); save it as {file}, or give the path '
            'of your copy'
        ) from error


def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    """Read weights by torchvision's name for them; most need no torchvision."""
    name = filename.partition('://')[2]
    urls = mmengine.load(Path(mmengine.__file__).parent / 'hub/torchvision_0.12.json')
    return load_from_http(urls[name] if name in urls else _known(get_torchvision_models(), filename), map_location)


def load_from_openmmlab(filename: str, map_location: Any = None) -> Any:
    """Read weights by OpenMMLab's short name for them."""
    return load_from_http(_known(get_external_models(), filename), map_location)


def _known(urls: dict[str, str], filename: str) -> str:
    url = urls.get(filename.partition('://')[2], '')
    if not url.startswith('http'):
        raise InputError(f'checkpoint must be a path, a URL or a known name, got {filename!r}')
    return url


def load_from_nowhere(filename: str, map_location: Any = None) -> Any:
    """Refuse a scheme that has no safe loader here."""
    raise InputError(f'checkpoint must be a path or a URL, got {filename!r}; fetch the file and give its path')


_LOADERS = {
    '': load_from_local,
    'http://': load_from_http,
    'https://': load_from_http,
    'modelzoo://': load_from_torchvision,
    'torchvision://': load_from_torchvision,
    'open-mmlab://': load_from_openmmlab,
    'openmmlab://': load_from_openmmlab,
}


def register_safe_loaders() -> None:
    """Put the loaders of this module in the place of mmengine's, for every scheme it knows."""
    for prefix in [*CheckpointLoader._schemes]:
        CheckpointLoader.register_scheme(prefix, _LOADERS.get(prefix, load_from_nowhere), force=True)
