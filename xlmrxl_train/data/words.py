"""Where words begin among the pieces of a sequence, for masks that hide whole words.

T: tokens of one sequence.
"""

import unicodedata

import numpy as np
from numpy.typing import NDArray

from xlmrxl_train.data.tokenizer import Tokenizer

SPACE = "▁"  # how a piece of SentencePiece writes the space before it
# Code points of scripts that write no space between words: there a piece of the vocabulary is taken for a word.
_UNSPACED = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x9FFF),  # Han
    (0xAA60, 0xAA7F),  # Myanmar, extended
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x20000, 0x3FFFF),  # Han, the rarer characters
)


class WordStarts:
    """Says of each token of a sequence whether a word begins with it.

    A word begins at a piece that has a space before it. In scripts without spaces each piece is a word, as the
    vocabulary was learnt from running text, in which frequent words and phrases became pieces; a piece that begins with
    a combining mark goes on with the one before, and a lone space belongs to what follows. Special tokens stand alone.

    Source: `is_beginning_of_word` in fairseq/data/encoders/sentencepiece_bpe.py and its use in
    fairseq/data/mask_tokens_dataset.py (facebookresearch/fairseq @ 079540e97f1a), which take a whole sentence without
    spaces for one word.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Look at every piece of the vocabulary once."""
        pieces: list[str] = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        special = {tokenizer.bos_token, tokenizer.pad_token, tokenizer.eos_token, tokenizer.mask_token}
        self._begins = np.array([piece in special or _begins_a_word(piece) for piece in pieces])
        self._ends = np.array([piece in special or _is_unspaced(piece[-1:]) for piece in pieces])
        self._continues = np.array([unicodedata.category(piece[:1] or "a").startswith("M") for piece in pieces])
        self._lone_space = np.array([piece == SPACE for piece in pieces])

    def of(self, tokens: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return [T]: whether a word begins; the first token always begins one."""
        starts: NDArray[np.bool_] = self._begins[tokens]
        starts[1:] |= self._ends[tokens[:-1]] & ~self._continues[tokens[1:]]
        starts[1:] &= ~self._lone_space[tokens[:-1]]
        starts[:1] = True
        return starts


def _begins_a_word(piece: str) -> bool:
    return piece.startswith(SPACE) or (_is_unspaced(piece[:1]) and not unicodedata.category(piece[0]).startswith("M"))


def _is_unspaced(character: str) -> bool:
    return bool(character) and any(first <= ord(character) <= last for first, last in _UNSPACED)
