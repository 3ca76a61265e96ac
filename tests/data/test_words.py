"""Where words begin, in scripts with and without spaces."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend

from tests.data.small_tokenizer import small_backend
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.data.words import WordStarts

PIECES = ["▁", "▁hello", "wor", "ld", "中国", "人", "ไทย", "้า", ",", "▁न", "म", "ा"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *PIECES, "<mask>"]
    rules = json.loads(small_backend().to_str())
    rules["model"]["vocab"] = [(piece, -1.0) for piece in vocabulary]
    for token in rules["added_tokens"]:
        token["id"] = vocabulary.index(token["content"])
    return Tokenizer(Backend.from_str(json.dumps(rules)))


def words(tokenizer: Tokenizer, *pieces: str) -> list[str]:
    ids = np.array(tokenizer.convert_tokens_to_ids(list(pieces)))
    assert tokenizer.unk_token_id not in ids
    starts = WordStarts(tokenizer).of(ids)
    groups: list[str] = []
    for piece, start in zip(pieces, starts, strict=True):
        groups = [*groups, piece] if start else [*groups[:-1], groups[-1] + piece]
    return groups


def test_a_space_begins_a_word(tokenizer: Tokenizer) -> None:
    got = words(tokenizer, "<s>", "▁hello", "wor", "ld", ",", "▁hello", "</s>", "</s>", "wor", "</s>")
    assert got == ["<s>", "▁hellowor" + "ld,", "▁hello", "</s>", "</s>", "wor", "</s>"]
    assert words(tokenizer, "<s>", "▁न", "म", "ा", "</s>") == ["<s>", "▁नमा", "</s>"]


def test_without_spaces_a_piece_is_a_word(tokenizer: Tokenizer) -> None:
    assert words(tokenizer, "<s>", "▁", "中国", "人", "wor", "ld", "</s>") == ["<s>", "▁中国", "人", "world", "</s>"]
    assert words(tokenizer, "▁hello", "中国", "▁hello") == ["▁hello", "中国", "▁hello"]
    assert words(tokenizer, "▁", "▁hello") == ["▁▁hello"]


def test_a_combining_mark_goes_on(tokenizer: Tokenizer) -> None:
    assert words(tokenizer, "<s>", "▁", "ไทย", "้า", "ไทย") == ["<s>", "▁ไทย้า", "ไทย"]


def test_words_of_a_real_vocabulary(shared_data: Path) -> None:
    real = Tokenizer.from_path(shared_data / "tokenizer" / "xlmr")
    starts = WordStarts(real)

    def split(text: str) -> list[str]:
        ids = np.array(real.encode(text)[1:-1])
        begins = np.flatnonzero(starts.of(ids))
        return [real.decode(part.tolist()) for part in np.split(ids, begins[1:])]

    assert split("Uncharacteristically, three unforgettable words.") == [
        "Uncharacteristically,", "three", "unforgettable", "words.",
    ]  # fmt: skip
    assert split("Отношения переменились") == ["Отношения", "переменились"]
    assert split("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]
    for text in ("มนุษย์ทั้งหลายเกิดมามีอิสระ", "人人生而自由", "すべての人間は自由である"):  # no space in them
        assert len(split(text)) > 2 and "".join(split(text)) == text
