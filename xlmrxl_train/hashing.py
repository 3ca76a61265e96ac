"""What a file holds, in 64 letters."""

import hashlib
from typing import BinaryIO

from xlmrxl_train.progress import progress

PIECE_BYTES = 1 << 26


def sha256(stream: BinaryIO) -> str:
    """Return the hash of the rest of a file, which may take minutes to read."""
    digest = hashlib.sha256()
    while piece := stream.read(PIECE_BYTES):
        digest.update(piece)
        progress.move()
    return digest.hexdigest()
