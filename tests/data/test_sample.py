"""The sample data set: balanced, parallel, free of leaks and of tells, and what `build.py` writes."""

import gzip
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from xlmrxl_train.data.sample.build import FOLDER, build, read_lexicon

LANGUAGES = "ar bg de el en es fr hi ru sw th tr ur vi zh".split()
LABELS = ("entailment", "neutral", "contradiction")
PAIRS = {"train": 1200, "validation": 60, "test": 180}
SCRIPTS = {"ar": "ARABIC", "ur": "ARABIC", "bg": "CYRILLIC", "ru": "CYRILLIC", "el": "GREEK", "hi": "DEVANAGARI"}
SCRIPTS |= {"th": "THAI", "zh": "CJK"}

Row = list[str]


def read(name: str) -> list[Row]:
    with gzip.open(FOLDER / f"{name}.tsv.gz", "rt", encoding="utf-8", newline="\n") as lines:
        return [line.rstrip("\n").split("\t") for line in lines]


@pytest.fixture(scope="module")
def nli() -> dict[tuple[str, str], list[Row]]:
    """Rows without the header, by split and language."""
    tables = {(split, code): read(f"nli/{split}-{code}") for split in PAIRS for code in LANGUAGES}
    assert all(table[0] == ["premise", "hypothesis", "label"] for table in tables.values())
    return {key: table[1:] for key, table in tables.items()}


@pytest.fixture(scope="module")
def parallel() -> dict[str, list[Row]]:
    """Rows without the header, by split."""
    tables = {split: read(f"parallel/{split}") for split in ("train", "validation")}
    assert all(table[0] == LANGUAGES for table in tables.values())
    return {split: table[1:] for split, table in tables.items()}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(gzip.decompress((FOLDER / "tokenizer.json.gz").read_bytes()).decode("utf-8"))


def test_every_split_is_balanced_and_parallel(nli: dict[tuple[str, str], list[Row]]) -> None:
    for (split, code), rows in nli.items():
        assert all(len(row) == 3 and all(field == field.strip() != "" for field in row) for row in rows)
        assert Counter(row[2] for row in rows) == dict.fromkeys(LABELS, PAIRS[split] // 3), (split, code)
        assert [row[2] for row in rows] == [row[2] for row in nli[split, "en"]], (split, code)


def test_equal_sentences_are_equal_in_every_language(nli: dict[tuple[str, str], list[Row]]) -> None:
    """Two lines share a premise in one language exactly where they do in English, so lines are aligned."""
    for split, code in nli:
        for side in (0, 1):
            english, here = ([row[side] for row in nli[split, c]] for c in ("en", code))
            assert len(set(zip(english, here, strict=True))) == len(set(english)) == len(set(here)), (split, code)


def test_parallel_rows(parallel: dict[str, list[Row]]) -> None:
    assert len(parallel["train"]) == 524
    assert len(parallel["validation"]) == 20
    for rows in parallel.values():
        assert all(len(row) == len(LANGUAGES) and all(row) for row in rows)
        assert len(set(map(tuple, rows))) == len(rows)


def test_evaluation_premises_are_new(nli: dict[tuple[str, str], list[Row]], parallel: dict[str, list[Row]]) -> None:
    for column, code in enumerate(LANGUAGES):
        premises = {split: {row[0] for row in nli[split, code]} for split in PAIRS}
        seen = premises["train"] | {row[column] for row in parallel["train"]}
        assert not premises["test"] & seen
        assert not premises["validation"] & seen
        assert not premises["test"] & premises["validation"]
        assert not {row[column] for row in parallel["validation"]} & seen
        assert not premises["test"] & {row[column] for row in parallel["validation"]}


def test_each_language_keeps_to_its_script(
    nli: dict[tuple[str, str], list[Row]], parallel: dict[str, list[Row]]
) -> None:
    texts = defaultdict(set)
    for (_, code), rows in nli.items():
        texts[code].update(character for row in rows for character in row[0] + row[1])
    for row in chain.from_iterable(parallel.values()):
        for code, text in zip(LANGUAGES, row, strict=True):
            texts[code].update(text)
    for code, characters in texts.items():
        letters = {character for character in characters if unicodedata.category(character)[0] in "LM"}
        assert {unicodedata.name(letter).split()[0] for letter in letters} == {SCRIPTS.get(code, "LATIN")}, code
        assert characters - letters <= set(" .。।۔'0123456789"), code


def test_tokenizer_follows_xlmr(tokenizer: Tokenizer) -> None:
    size = tokenizer.get_vocab_size()
    specials = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    assert [tokenizer.token_to_id(token) for token in specials] == [0, 1, 2, 3, size - 1]
    encoding = tokenizer.encode("The man sleeps.", "The man is in room 3.")
    assert encoding.tokens == "<s> ▁The ▁man ▁sleeps . </s> </s> ▁The ▁man ▁is ▁in ▁room ▁ 3 . </s>".split()
    assert tokenizer.encode("医生在3号房间喝茶。").tokens == (
        ["<s>", "▁医生", "在", "3", "号", "房间", "喝", "茶", "。", "</s>"]
    )
    masked = [tokenizer.id_to_token(number) for number in tokenizer.encode("The <mask> sleeps.").ids]
    assert masked == ["<s>", "▁The", "<mask>", "▁sleeps", ".", "</s>"]


def test_tokenizer_knows_every_text(
    tokenizer: Tokenizer, nli: dict[tuple[str, str], list[Row]], parallel: dict[str, list[Row]]
) -> None:
    sentences = {text for rows in nli.values() for row in rows for text in row[:2]}
    sentences.update(chain.from_iterable(chain.from_iterable(parallel.values())))
    unknown = tokenizer.token_to_id("<unk>")
    for text in sentences:
        ids = tokenizer.encode(text).ids
        assert unknown not in ids, text
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("side", [0, 1], ids=["premise", "hypothesis"])
def test_one_side_does_not_tell_the_label(nli: dict[tuple[str, str], list[Row]], side: int) -> None:
    """Naive Bayes over words, and over whole sentences, stays near chance, one third."""
    units: dict[str, Callable[[str], list[str]]] = {"words": str.split, "sentences": lambda text: [text]}
    for name, cut in units.items():
        counts: dict[str, Counter[str]] = {label: Counter() for label in LABELS}
        for row in nli["train", "en"]:
            counts[row[2]].update(cut(row[side]))
        right = 0
        for row in nli["test", "en"]:
            scores = {label: sum(math.log(counts[label][unit] + 1) for unit in cut(row[side])) for label in LABELS}
            right += max(scores, key=scores.__getitem__) == row[2]
        assert right / len(nli["test", "en"]) < 0.45, name


def test_the_folder_is_small() -> None:
    data = [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in data) < 400_000


def test_build_writes_the_same_files_again(tmp_path: Path) -> None:
    """Bytes of two builds agree here; the text agrees with the shipped files (zlib's bytes differ by version)."""
    build(tmp_path / "first")
    build(tmp_path / "second")
    shipped = {path.relative_to(FOLDER) for path in FOLDER.rglob("*.gz")}
    assert shipped == {path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.gz")}
    for path in shipped:
        first = (tmp_path / "first" / path).read_bytes()
        assert first == (tmp_path / "second" / path).read_bytes(), path
        assert gzip.decompress(first) == gzip.decompress((FOLDER / path).read_bytes()), path


def test_a_language_that_misses_a_concept_is_named(tmp_path: Path) -> None:
    text = (FOLDER / "lexicon.toml").read_text(encoding="utf-8")
    path = tmp_path / "lexicon.toml"
    path.write_text(text.replace('subjects = ["Der Mann", ', "subjects = ["), encoding="utf-8")
    with pytest.raises(ValueError, match=r"\[de\] subjects must name 6 concepts, as in \[en\], got 5"):
        read_lexicon(path)
