"""Write the sample data set from `lexicon.toml`: `python -m xlmrxl_train.data.sample.build`.

A premise says who does what, and where or when. A hypothesis says one thing:

    The doctor reads a book in room 3.      The doctor is in room 3.      entailment
    The doctor reads a book in room 3.      The doctor is in room 5.      contradiction
    The doctor reads a book in room 3.      The year is 2007.             neutral

Numbers are written alike in all languages and words are not, so a small model finds a first foothold in other
languages; a fifth of the pairs is about places and actions, which only words tell:

    The doctor reads a book in the garden.  The doctor is at the station.  contradiction
    The doctor reads a book in the garden.  The teacher reads a book.      neutral

Every premise occurs once under each label, and what a hypothesis says is drawn alike for all: neither side alone
tells the label.
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
from dataclasses import dataclass
from itertools import product
from pathlib import Path

FOLDER = Path(__file__).parent
SEED = 15
PREMISES = {
    "test": {"place": 12, "room": 24, "year": 24},
    "validation": {"place": 4, "room": 8, "year": 8},
    "train": {"place": 80, "room": 160, "year": 160},
}
"""Premises per split and kind; each gives a pair of every label."""
LABELS = ("entailment", "neutral", "contradiction")

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
WORD_START = "▁"
SENTENCE_END = re.compile(r"([.。।۔])$")
NUMBER = re.compile(r"([0-9]+)")  # a piece of its own, so that all languages share it
NUMBERS = {"room": range(2, 6), "year": range(2006, 2010)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """One table of `lexicon.toml`."""

    subjects: Sequence[str]
    actions: Sequence[str]
    actions_feminine: Sequence[str]
    places: Sequence[str]
    room: str
    year: str
    frames: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """Something a sentence says: kind is "action", "place", "room" or "year", value its position or number."""

    kind: str
    value: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """Who, does what, where or when."""

    subject: int
    facts: tuple[Fact, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A premise, a hypothesis, and how they relate."""

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
        for name in ("subjects", "actions", "actions_feminine", "places", "frames"):
            got, wanted = len(getattr(language, name)), len(getattr(languages["en"], name))
            if got != wanted:
                raise ValueError(f"{path}: [{code}] {name} must name {wanted} concepts, as in [en], got {got}.")
    return languages


def phrase(language: Language, sentence: Sentence) -> str:
    """Put a sentence into words, with `|` between words that are written together."""
    said = {fact.kind: fact.value for fact in sentence.facts}
    if set(said) == {"year"}:
        return language.frames["Y"].format(n=said["year"])
    actions = language.actions_feminine if sentence.subject % 2 else language.actions
    action = actions[said["action"]] if "action" in said else ""
    where = language.places[said["place"]] if "place" in said else ""
    for kind, words in (("room", language.room), ("year", language.year)):
        where = words.format(n=said[kind]) if kind in said else where
    frame = language.frames["A" * bool(action) + "P" * bool(where)]
    if "…" in action:
        frame = frame.replace(" {P}", "")
        action = action.replace("…", where) if where else action.replace(" …", "")
    return frame.format(S=language.subjects[sentence.subject], A=action, P=where)


def write_out(language: Language, sentence: Sentence) -> str:
    """Put a sentence into words as they are written."""
    return phrase(language, sentence).replace("|", "")


def draw_pair(premise: Sentence, label: str, about: str, english: Language, rng: random.Random) -> Pair:
    """Draw a hypothesis on one fact of the premise.

    Entailed, it says what the premise says; contradicted, another value of the same fact. Neutral, it speaks of
    something that the premise leaves open: of the room where that tells the year, of the year where that tells the
    room, of somebody else where it tells action and place.
    """
    subject, value = premise.subject, next(fact.value for fact in premise.facts if fact.kind == about)
    words = english.places if about == "place" else english.actions
    values = NUMBERS.get(about, range(len(words)))
    if label == "neutral" and about in NUMBERS:
        about = "year" if about == "room" else "room"
        value = rng.choice(NUMBERS[about])
    elif label == "neutral":
        subject = rng.choice([other for other in range(len(english.subjects)) if other != subject])
    if label == "contradiction" or (label == "neutral" and about not in NUMBERS and rng.random() < 0.5):
        value = rng.choice([other for other in values if other != value])
    return Pair(
        premise=premise, hypothesis=Sentence(subject=subject, facts=(Fact(kind=about, value=value),)), label=label
    )


def pieces(phrases: Iterable[str]) -> Iterator[str]:
    """Cut phrases into whole words and final punctuation, with `▁` where a space or the text begins."""
    for marked in phrases:
        for chunk in marked.split(" "):
            marked = NUMBER.sub(r"|\1|", SENTENCE_END.sub(r"|\1", WORD_START + chunk))
            yield from filter(None, marked.split("|"))


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
    english = languages["en"]
    subjects, actions = range(len(english.subjects)), range(len(english.actions))
    values: dict[str, range] = {"place": range(len(english.places)), **NUMBERS}
    premises = {
        kind: [
            Sentence(subject=subject, facts=(Fact(kind="action", value=action), Fact(kind=kind, value=value)))
            for subject, action, value in product(subjects, actions, told)
        ]
        for kind, told in values.items()
    }
    for sentences in premises.values():
        rng.shuffle(sentences)

    parallel: dict[str, list[Sentence]] = {}
    for split, numbers in PREMISES.items():
        pairs = []
        parallel[split] = []
        for kind, number in numbers.items():
            here, premises[kind] = premises[kind][:number], premises[kind][number:]
            parallel[split] += here
            for position, premise in enumerate(here):
                about = "action" if kind == "place" and position % 2 else kind
                pairs += [draw_pair(premise, label, about, english, rng) for label in LABELS]
        rng.shuffle(pairs)
        for code, language in languages.items():
            rows = ((write_out(language, p.premise), write_out(language, p.hypothesis), p.label) for p in pairs)
            write_table(folder / "nli" / f"{split}-{code}.tsv.gz", ("premise", "hypothesis", "label"), rows)

    doing = [Fact(kind="action", value=action) for action in actions]
    parallel["train"] += [Sentence(subject=subject, facts=(fact,)) for subject, fact in product(subjects, doing)]
    for kind, told in values.items():
        who = range(1) if kind == "year" else subjects
        parallel["train"] += [
            Sentence(subject=s, facts=(Fact(kind=kind, value=value),)) for s, value in product(who, told)
        ]
    for split in ("train", "validation"):
        rng.shuffle(parallel[split])
        table = ([write_out(language, sentence) for language in languages.values()] for sentence in parallel[split])
        write_table(folder / "parallel" / f"{split}.tsv.gz", tuple(languages), table)
    phrases = (phrase(language, sentence) for language in languages.values() for sentence in parallel["train"])
    write_gzip(folder / "tokenizer.json.gz", build_tokenizer(phrases))


def main() -> None:
    """Write the files beside this one, or into another folder."""
    parser = argparse.ArgumentParser(description="Write the sample data set.")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    build(parser.parse_args().folder)


if __name__ == "__main__":
    main()
