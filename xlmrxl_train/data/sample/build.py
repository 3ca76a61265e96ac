"""Write the sample data set from `lexicon.toml`: `python -m xlmrxl_train.data.sample.build`.

A sentence says what a person does, and where or when or both. A premise has a place and a time: either
the place tells indoors from outdoors and the time is a weekday, or the time tells summer from winter
and the place is, say, a village. A hypothesis asserts one of these four circumstances:

    The doctor reads a book in the garden on Monday.     The doctor reads a book outdoors.     entailment
    The doctor reads a book in the garden on Monday.     The doctor reads a book indoors.      contradiction
    The doctor reads a book in the garden on Monday.     The doctor reads a book in winter.    neutral

Every kind of premise and every hypothesis occurs equally often under each label, so neither side
alone tells the label.
"""

import argparse
import gzip
import json
import math
import random
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path

FOLDER = Path(__file__).parent
SEED = 15
NLI_PAIRS = {"train": 1200, "validation": 72, "test": 180}
"""Pairs per split and language, multiples of 12 (see `draw_pairs`)."""
PARALLEL_ROWS = {"train": 800, "validation": 60}
"""Rows of the masked-LM stage, one sentence in all languages; a quarter names a hypothesis's circumstance."""

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
WORD_START = "▁"
WORD_END = re.compile(r"([.。।۔]$|\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """One table of `lexicon.toml`."""

    subjects: Sequence[str]
    actions: Sequence[str]
    actions_feminine: Sequence[str]
    indoor_places: Sequence[str]
    outdoor_places: Sequence[str]
    other_places: Sequence[str]
    indoors_outdoors: Sequence[str]
    summer_months: Sequence[str]
    winter_months: Sequence[str]
    weekdays: Sequence[str]
    summer_winter: Sequence[str]
    frame: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Circumstance:
    """A place or a time: a list of the lexicon by name, and a position in it."""

    kind: str
    index: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """What a sentence says, before it is put into words; None where it says nothing."""

    subject: int
    action: int
    place: Circumstance | None = None
    time: Circumstance | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A premise, a hypothesis about the same person and action, and how they relate."""

    premise: Sentence
    hypothesis: Sentence
    label: str


def read_lexicon(path: Path = FOLDER / "lexicon.toml") -> dict[str, Language]:
    """Read the languages, by code in alphabetical order.

    Raises:
        ValueError: A language names more or fewer concepts than English.
    """
    tables = tomllib.loads(unicodedata.normalize("NFC", path.read_text(encoding="utf-8")))
    languages = {
        code: Language(**({"actions_feminine": table["actions"]} | table)) for code, table in sorted(tables.items())
    }
    for code, language in languages.items():
        for name in (field.name for field in fields(Language) if field.name != "frame"):
            got, wanted = len(getattr(language, name)), len(getattr(languages["en"], name))
            if got != wanted:
                raise ValueError(f"{path}: [{code}] {name} must name {wanted} concepts, as in [en], got {got}.")
    return languages


def phrase(language: Language, sentence: Sentence) -> str:
    """Put a sentence into words, with `|` between words that are written together."""
    is_feminine = sentence.subject % 2 == 1
    action = (language.actions_feminine if is_feminine else language.actions)[sentence.action]
    place, time = (
        getattr(language, circumstance.kind)[circumstance.index] if circumstance else ""
        for circumstance in (sentence.place, sentence.time)
    )
    action = action.replace("…", f"{time} {place}")
    words = language.frame.format(S=language.subjects[sentence.subject], A=action, P=place, T=time)
    for gap, joint in ((r" {2,}", " "), (r"\|{2,}", "|"), (r" (?=\.)|\|$", "")):
        words = re.sub(gap, joint, words)
    return words


def write_out(language: Language, sentence: Sentence) -> str:
    """Put a sentence into words as they are written."""
    return phrase(language, sentence).replace("|", "")


def circumstances(english: Language, *kinds: str) -> list[Circumstance]:
    """Return all places or times of some lists of the lexicon."""
    return [Circumstance(kind=kind, index=index) for kind in kinds for index in range(len(getattr(english, kind)))]


def all_premises(english: Language, rng: random.Random) -> tuple[list[Sentence], list[Sentence]]:
    """Return all premises whose place is telling, and all whose time is, in random order."""
    deeds = list(product(range(len(english.subjects)), range(len(english.actions))))
    by_place, by_time = (
        [
            Sentence(subject=subject, action=action, place=place, time=time)
            for (subject, action), place, time in product(
                deeds, circumstances(english, *places), circumstances(english, *times)
            )
        ]
        for places, times in (
            (("indoor_places", "outdoor_places"), ("weekdays",)),
            (("other_places",), ("summer_months", "winter_months")),
        )
    )
    rng.shuffle(by_place)
    rng.shuffle(by_time)
    return by_place, by_time


def draw_pairs(by_place: list[Sentence], by_time: list[Sentence], number: int, rng: random.Random) -> list[Pair]:
    """Use up premises from the end, and draw a hypothesis for each, balanced over labels and both sides.

    A third of either kind of premise is entailed, contradicted and neutral; for each label, half of the
    hypotheses of a kind say indoors (summer) and half say outdoors (winter).
    """
    pairs = []
    for premises, is_about_place in ((by_place, True), (by_time, False)):
        for label, value in product(("entailment", "contradiction", "neutral"), (0, 1)):
            for _ in range(number // 12):
                if label == "neutral":
                    premise = premises.pop()
                else:
                    wanted = value if label == "entailment" else 1 - value
                    premise = take_premise(premises, wanted)
                asks_place = is_about_place != (label == "neutral")
                hypothesis = Sentence(
                    subject=premise.subject,
                    action=premise.action,
                    place=Circumstance(kind="indoors_outdoors", index=value) if asks_place else None,
                    time=None if asks_place else Circumstance(kind="summer_winter", index=value),
                )
                pairs.append(Pair(premise=premise, hypothesis=hypothesis, label=label))
    rng.shuffle(pairs)
    return pairs


def take_premise(premises: list[Sentence], value: int) -> Sentence:
    """Remove and return the last premise that is indoors or in summer (0), or outdoors or in winter (1)."""
    kinds = (("indoor_places", "summer_months"), ("outdoor_places", "winter_months"))[value]
    for position in reversed(range(len(premises))):
        premise = premises[position]
        if any(circumstance and circumstance.kind in kinds for circumstance in (premise.place, premise.time)):
            return premises.pop(position)
    raise ValueError(f"No premise of {' or '.join(kinds)} is left. Lower NLI_PAIRS.")


def draw_parallel(
    english: Language, by_place: list[Sentence], by_time: list[Sentence], number: int, rng: random.Random
) -> list[Sentence]:
    """Use up premises, and draw as many sentences with one circumstance, half of them a hypothesis's."""
    rows = [premises.pop() for premises in (by_place, by_time) for _ in range(number // 4)]
    deeds = product(range(len(english.subjects)), range(len(english.actions)))
    places, times = (
        (("indoors_outdoors",), ("indoor_places", "outdoor_places", "other_places")),
        (("summer_winter",), ("summer_months", "winter_months", "weekdays")),
    )
    deeds = list(deeds)
    for kinds in places:
        choices = list(product(deeds, circumstances(english, *kinds)))
        rows += [Sentence(subject=s, action=a, place=place) for (s, a), place in rng.sample(choices, number // 8)]
    for kinds in times:
        choices = list(product(deeds, circumstances(english, *kinds)))
        rows += [Sentence(subject=s, action=a, time=time) for (s, a), time in rng.sample(choices, number // 8)]
    rng.shuffle(rows)
    return rows


def pieces(phrases: Iterable[str]) -> Iterator[str]:
    """Cut phrases into whole words and final punctuation, with `▁` where a space or the text begins."""
    for marked in phrases:
        for chunk in marked.split(" "):
            yield from filter(None, WORD_END.sub(r"|\1|", WORD_START + chunk).split("|"))


def build_tokenizer(phrases: Iterable[str]) -> str:
    """Return a `tokenizer.json`: a Unigram model of the sample's words, and of characters for the rest.

    The special tokens, their numbers and the pair encoding are XLM-R's.
    """
    counts = Counter(pieces(phrases))
    characters = {WORD_START, *map(chr, range(ord("!"), ord("~") + 1))}
    for character in "".join(counts):
        characters |= {character, *(c for c in (character.lower(), character.upper()) if len(c) == 1)}
    total = counts.total()
    words = [(word, round(math.log(count / total), 4)) for word, count in counts.items()]
    words.sort(key=lambda word: (-word[1], word[0]))
    rare = min(score for _, score in words) - 5.0
    vocabulary = [(token, 0.0) for token in SPECIAL_TOKENS] + words
    vocabulary += [(character, rare) for character in sorted(characters - counts.keys())]
    vocabulary += [("<mask>", 0.0)]
    numbers = {token: number for number, (token, _) in enumerate(vocabulary)}
    special = {token: {"id": token, "ids": [numbers[token]], "tokens": [token]} for token in ("<s>", "</s>")}
    begin, end = ({"SpecialToken": {"id": token, "type_id": 0}} for token in special)
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    metaspace = {"type": "Metaspace", "replacement": WORD_START, "prepend_scheme": "always", "split": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": numbers[token],
                "content": token,
                "single_word": False,
                "lstrip": token == "<mask>",
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token in (*SPECIAL_TOKENS, "<mask>")
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": metaspace,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, first, end],
            "pair": [begin, first, end, end, second, end],
            "special_tokens": special,
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocabulary, "byte_fallback": False},
    }
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n"


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write tab-separated text, gzipped."""
    write_gzip(path, "".join("\t".join(row) + "\n" for row in (header, *rows)))


def write_gzip(path: Path, text: str) -> None:
    """Write text, gzipped without name and time: the same text gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0))


def build(folder: Path) -> None:
    """Write all files of the sample into a folder."""
    rng = random.Random(SEED)
    languages = read_lexicon()
    by_place, by_time = all_premises(languages["en"], rng)
    pairs = {split: draw_pairs(by_place, by_time, NLI_PAIRS[split], rng) for split in ("test", "validation")}
    parallel = {split: draw_parallel(languages["en"], by_place, by_time, number, rng) for split, number in PARALLEL_ROWS.items()}
    pairs["train"] = draw_pairs(by_place, by_time, NLI_PAIRS["train"], rng)

    for split, rows in pairs.items():
        for code, language in languages.items():
            write_table(
                folder / "nli" / f"{split}-{code}.tsv.gz",
                ("premise", "hypothesis", "label"),
                ((write_out(language, row.premise), write_out(language, row.hypothesis), row.label) for row in rows),
            )
    for split, sentences in parallel.items():
        write_table(
            folder / "parallel" / f"{split}.tsv.gz",
            tuple(languages),
            ([write_out(language, sentence) for language in languages.values()] for sentence in sentences),
        )
    phrases = (phrase(language, row) for language in languages.values() for row in parallel["train"])
    write_gzip(folder / "tokenizer.json.gz", build_tokenizer(phrases))


def main() -> None:
    """Write the files beside this one, or into another folder."""
    parser = argparse.ArgumentParser(description="Write the sample data set.")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    build(parser.parse_args().folder)


if __name__ == "__main__":
    main()
