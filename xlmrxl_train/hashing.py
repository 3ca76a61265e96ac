"""What a file holds, in 64 letters."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from xlmrxl_train.progress import progress

PIECE_BYTES = 1 << 26
SAMPLES, SAMPLE_BYTES = 64, 1 << 12


def sha256(stream: BinaryIO) -> str:
    """Return the hash of the rest of a file, which may take minutes to read."""
    digest = hashlib.sha256()
    while piece := stream.read(PIECE_BYTES):
        digest.update(piece)
        progress.move()
    return digest.hexdigest()


def sampled_sha256(files: Iterable[Path]) -> str:
    """Return a hash of the names and sizes of large files, and of some bytes all over them: milliseconds."""
    digest = hashlib.sha256()
    for file in sorted(files):
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as stream:
            for sample in range(SAMPLES):
                stream.seek(max(0, size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
                digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()
