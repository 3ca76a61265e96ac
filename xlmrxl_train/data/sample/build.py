"""Write the sample data set from `lexicon.toml`: `python -m xlmrxl_train.data.sample.build`.

A premise says who does what and where. A hypothesis says one thing about the same or another person:

    The doctor reads a book in the garden.     The doctor is in the garden.      entailment
    The doctor reads a book in the garden.     The doctor is at the station.     contradiction
    The doctor reads a book in the garden.     The teacher is at the station.    neutral

Every premise occurs equally often under each label, and so, nearly, does every hypothesis: neither
side alone tells the label.
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
PREMISES = {"test": 60, "validation": 24, "train": 300}
"""Premises per split; together they are all there are."""
LABELS = ("entailment", "neutral", "contradiction")

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
WORD_START = "▁"
SENTENCE_END = re.compile(r"([.。।۔])$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """One table of `lexicon.toml`."""

    subjects: Sequence[str]
    actions: Sequence[str]
    actions_feminine: Sequence[str]
    places: Sequence[str]
    frames: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """What a sentence says, as positions in the lexicon; None where it says nothing."""

    subject: int
    action: int | None = None
    place: int | None = None


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
    actions = language.actions_feminine if sentence.subject % 2 else language.actions
    action = actions[sentence.action] if sentence.action is not None else ""
    place = language.places[sentence.place] if sentence.place is not None else ""
    frame = language.frames["A" * bool(action) + "P" * bool(place)]
    if "…" in action:
        frame = frame.replace(" {P}", "") if action else frame
        action = action.replace("…", place) if place else action.replace(" …", "")
    return frame.format(S=language.subjects[sentence.subject], A=action, P=place)


def write_out(language: Language, sentence: Sentence) -> str:
    """Put a sentence into words as they are written."""
    return phrase(language, sentence).replace("|", "")


def draw_pair(premise: Sentence, label: str, is_about_place: bool, english: Language, rng: random.Random) -> Pair:
    """Draw a hypothesis on the place or the action.

    Entailed, it says of the same person what the premise says; contradicted, something else. Neutral,
    it says either of somebody else.
    """
    subject, fact = premise.subject, premise.place if is_about_place else premise.action
    facts = range(len(english.places if is_about_place else english.actions))
    if label == "neutral":
        subject = rng.choice([other for other in range(len(english.subjects)) if other != subject])
    if label == "contradiction" or (label == "neutral" and rng.random() < 0.5):
        fact = rng.choice([other for other in facts if other != fact])
    hypothesis = Sentence(subject=subject, place=fact) if is_about_place else Sentence(subject=subject, action=fact)
    return Pair(premise=premise, hypothesis=hypothesis, label=label)


def pieces(phrases: Iterable[str]) -> Iterator[str]:
    """Cut phrases into whole words and final punctuation, with `▁` where a space or the text begins."""
    for marked in phrases:
        for chunk in marked.split(" "):
            yield from filter(None, SENTENCE_END.sub(r"|\1", WORD_START + chunk).split("|"))


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
    subjects, actions, places = (range(len(words)) for words in (english.subjects, english.actions, english.places))
    premises = [Sentence(subject=s, action=a, place=p) for s, a, p in product(subjects, actions, places)]
    rng.shuffle(premises)

    parallel: dict[str, list[Sentence]] = {}
    for split, number in PREMISES.items():
        here, premises = premises[:number], premises[number:]
        pairs = [
            draw_pair(premise, label, is_about_place, english, rng)
            for position, premise in enumerate(here)
            for label in LABELS
            for is_about_place in ((False, True) if split == "train" else (position % 2 == 0,))
        ]
        rng.shuffle(pairs)
        for code, language in languages.items():
            rows = ((write_out(language, p.premise), write_out(language, p.hypothesis), p.label) for p in pairs)
            write_table(folder / "nli" / f"{split}-{code}.tsv.gz", ("premise", "hypothesis", "label"), rows)
        parallel[split] = here

    parallel["train"] += [Sentence(subject=s, action=a) for s, a in product(subjects, actions)]
    parallel["train"] += [Sentence(subject=s, place=p) for s, p in product(subjects, places)]
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
