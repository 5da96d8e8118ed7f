"""Files: the digest by which data and checkpoints are told apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

_BLOCK_BYTES = 2**22


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
