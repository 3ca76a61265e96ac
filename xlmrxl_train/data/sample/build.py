"""Write the sample data set from `lexicon.toml`: `python -m xlmrxl_train.data.sample.build`.

A sentence states facts about one person: what they do, where, on which date. A premise states two
of the three kinds of fact, a hypothesis states one, and the label follows by comparing them:

    The doctor reads a book in the garden.     The doctor is in the garden.     entailment
    The doctor reads a book in the garden.     The doctor is at the station.    contradiction
    The doctor reads a book in the garden.     It happens on 3 May.             neutral

Every kind of premise and every kind of hypothesis occurs equally often under each label, so
neither side alone tells the label.
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
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

FOLDER = Path(__file__).parent
SEED = 15
NLI_PAIRS = {"train": 900, "validation": 72, "test": 180}
"""Pairs per split and language, multiples of 18 (see `draw_pairs`)."""
PARALLEL_ROWS = {"train": 900, "validation": 60}
"""Two-fact sentences of the masked-LM stage, in all languages; train has all one-fact sentences on top."""

KINDS = "APD"
"""The kinds of fact: action, place, date."""
PREMISE_KINDS = ("AP", "AD", "PD")
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
DAYS = (2, 3, 4, 6, 7, 8, 9, 10)
"""Days of May, the fifth month, which Vietnamese and Chinese write 5."""
WORD_START = "▁"
WORD_END = re.compile(r"([.。।۔]$|\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """One table of `lexicon.toml`."""

    code: str
    subjects: Sequence[str]
    actions: Sequence[str]
    actions_feminine: Sequence[str]
    places: Sequence[str]
    date: str
    frames: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """A sentence before it is put into words: positions in the lexicon, None where nothing is said."""

    subject: int
    action: int | None = None
    place: int | None = None
    day: int | None = None

    @property
    def kinds(self) -> str:
        """The kinds of fact stated, as the keys of a language's frames."""
        return "".join(kind for kind in KINDS if self.get(kind) is not None)

    def get(self, kind: str) -> int | None:
        """Return the fact of a kind: `A`, `P` or `D`."""
        return {"A": self.action, "P": self.place, "D": self.day}[kind]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A premise, a hypothesis of one fact about the same person, and how they relate."""

    premise: Facts
    hypothesis: Facts
    label: str


def read_lexicon(path: Path = FOLDER / "lexicon.toml") -> dict[str, Language]:
    """Read the languages, by code in alphabetical order.

    Raises:
        ValueError: A language names more or fewer concepts than English.
    """
    tables = tomllib.loads(unicodedata.normalize("NFC", path.read_text(encoding="utf-8")))
    languages = {
        code: Language(code=code, **({"actions_feminine": table["actions"]} | table))
        for code, table in sorted(tables.items())
    }
    for language in languages.values():
        for name in ("subjects", "actions", "actions_feminine", "places", "frames"):
            got, wanted = len(getattr(language, name)), len(getattr(languages["en"], name))
            if got != wanted:
                raise ValueError(
                    f"{path}: [{language.code}] {name} must name {wanted} concepts, as in [en], got {got}."
                )
    return languages


def phrase(language: Language, facts: Facts) -> str:
    """Put facts into words, with `|` between words that are written together."""
    is_feminine = facts.subject % 2 == 1
    actions = language.actions_feminine if is_feminine else language.actions
    words = {
        "S": language.subjects[facts.subject],
        "A": actions[facts.action] if facts.action is not None else "",
        "P": language.places[facts.place] if facts.place is not None else "",
        "D": language.date.replace("#", str(facts.day)) if facts.day is not None else "",
    }
    frame = language.frames[facts.kinds]
    if "…" in words["A"]:
        circumstance = words["P"] or words["D"]
        frame = frame.replace(" {P}", "").replace(" {D}", "")
        words["A"] = words["A"].replace("…", circumstance) if circumstance else words["A"].replace(" …", "")
    return frame.format(**words)


def sentence(language: Language, facts: Facts) -> str:
    """Put facts into words as they are written."""
    return phrase(language, facts).replace("|", "")


def draw_pairs(
    premises: Mapping[str, list[Facts]], number: int, values: Mapping[str, Sequence[int]], rng: random.Random
) -> list[Pair]:
    """Take premises and draw a hypothesis for each, balanced over labels, premises and hypotheses.

    Each kind of premise gets each label equally often. For entailment and contradiction, half of the
    hypotheses ask for its first fact and half for its second; for neutral, all ask for the fact that
    it lacks. So each kind of hypothesis gets each label equally often, too.

    Args:
        premises: Premises not used so far, by their kinds of fact; used up from the end.
        number: Pairs to draw, a multiple of 18.
        values: The facts of each kind.
        rng: The source of randomness.
    """
    half = number // 18
    pairs = []
    for kinds in PREMISE_KINDS:
        (missing,) = set(KINDS) - set(kinds)
        plan = [(label, kind) for label in ("entailment", "contradiction") for kind in kinds]
        for label, kind in (*plan, ("neutral", missing), ("neutral", missing)):
            for value in repeat_evenly(values[kind], half, rng):
                premise = take_premise(premises[kinds], label, kind, value)
                pairs.append(Pair(premise=premise, hypothesis=one_fact(premise.subject, kind, value), label=label))
    rng.shuffle(pairs)
    return pairs


def repeat_evenly(values: Sequence[int], number: int, rng: random.Random) -> list[int]:
    """Return `number` of the values, each as often as any other but for the remainder."""
    whole, remainder = divmod(number, len(values))
    return list(values) * whole + rng.sample(values, remainder)


def take_premise(premises: list[Facts], label: str, kind: str, value: int) -> Facts:
    """Remove and return the last premise that stands in the labelled relation to a fact."""
    for position in reversed(range(len(premises))):
        if label == "neutral" or (premises[position].get(kind) == value) == (label == "entailment"):
            return premises.pop(position)
    raise ValueError(f"No premise left with {label} of {kind}{value}. Lower NLI_PAIRS.")


def one_fact(subject: int, kind: str, value: int) -> Facts:
    """Return a single fact about a person."""
    return replace(Facts(subject=subject), **{{"A": "action", "P": "place", "D": "day"}[kind]: value})


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
    english = languages["en"]
    values = {"A": range(len(english.actions)), "P": range(len(english.places)), "D": DAYS}
    subjects = range(len(english.subjects))

    premises: dict[str, list[Facts]] = {}
    for kinds in PREMISE_KINDS:
        choices: list[Sequence[int | None]] = [values[kind] if kind in kinds else [None] for kind in KINDS]
        premises[kinds] = [
            Facts(subject=subject, action=action, place=place, day=day)
            for subject in subjects
            for action, place, day in product(*choices)
        ]
        rng.shuffle(premises[kinds])

    pairs = {split: draw_pairs(premises, NLI_PAIRS[split], values, rng) for split in ("test", "validation")}
    parallel = {}
    for split in ("validation", "train"):
        each = PARALLEL_ROWS[split] // len(PREMISE_KINDS)
        parallel[split] = [facts for kinds in PREMISE_KINDS for facts in premises[kinds][:each]]
        if split == "validation":
            premises = {kinds: rest[each:] for kinds, rest in premises.items()}
    parallel["train"] += [one_fact(s, kind, value) for kind in "AP" for s in subjects for value in values[kind]]
    parallel["train"] += [one_fact(0, "D", day) for day in DAYS]
    pairs["train"] = draw_pairs(premises, NLI_PAIRS["train"], values, rng)

    for split, rows in pairs.items():
        for language in languages.values():
            write_table(
                folder / "nli" / f"{split}-{language.code}.tsv.gz",
                ("premise", "hypothesis", "label"),
                ((sentence(language, row.premise), sentence(language, row.hypothesis), row.label) for row in rows),
            )
    for split, facts_of_rows in parallel.items():
        rng.shuffle(facts_of_rows)
        write_table(
            folder / "parallel" / f"{split}.tsv.gz",
            tuple(languages),
            ([sentence(language, facts) for language in languages.values()] for facts in facts_of_rows),
        )
    phrases = (phrase(language, facts) for language in languages.values() for facts in parallel["train"])
    write_gzip(folder / "tokenizer.json.gz", build_tokenizer(phrases))


def main() -> None:
    """Write the files beside this one, or into another folder."""
    parser = argparse.ArgumentParser(description="Write the sample data set.")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    build(parser.parse_args().folder)


if __name__ == "__main__":
    main()
