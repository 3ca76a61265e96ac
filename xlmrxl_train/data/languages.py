"""The languages of data sets, by the codes that data sets write: en, eng, eng_Latn; zh, zho_Hans; arb_Arab.

languages.tsv holds family, script and XLM-R's pre-training data; names come from langcodes. No torch.
"""

import csv
import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from xlmrxl_train.errors import DataError

if TYPE_CHECKING:
    import langcodes

_CODE = re.compile(r"(?P<language>[a-z]{2,3})(?:[_-](?P<script>[A-Za-z]{4}))?(?:[_-][A-Za-z0-9]+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """What reports say about a language."""

    code: str  # as the data set writes it
    base: str  # the code under which all ways of writing it meet: en for en, eng and eng_Latn
    name: str  # in English
    family: str  # top-level family or isolate; "unknown" where the table has none
    script: str  # ISO 15924: Latn, Arab, Hans
    in_pretraining: bool  # whether CC-100, on which XLM-R, XL and XXL were trained, has it in this script
    pretraining_gib: float | None  # its size there, GiB; None where it has none or the size is not known


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    code: str
    script: str
    family: str
    sizes: dict[str, float | None]  # script, or "any" -> GiB of CC-100; None: in it, size not known


def language(code: str | int) -> Language:
    """Look up a code as a data set writes it.

    Raises:
        DataError: It is not a language code; the message names the nearest ones.
    """
    if not isinstance(code, str):  # YAML reads an unquoted `no` as False
        hint = "quote 'no'" if code is False else "quote it"
        raise DataError(f"A language must be a code such as en or eng_Latn, got {code!r}. In YAML, {hint}.")
    match = _CODE.fullmatch(code)
    if match is None:
        raise _unknown(code)
    bare, written_script = match["language"], (match["script"] or "").title()
    entry = _table().get(bare)
    if entry is None:
        return _outside_the_table(code, bare, written_script)
    script = written_script or entry.script
    # Romanised Hindi is another language to a reader than Hindi, so its script belongs to its name.
    telling = written_script if written_script != entry.script or len(entry.sizes) > 1 else ""
    key = "any" if "any" in entry.sizes else script
    return Language(
        code=code,
        base=entry.code,
        name=_tag(entry.code, telling).display_name(),
        family=entry.family,
        script=script,
        in_pretraining=key in entry.sizes,
        pretraining_gib=entry.sizes.get(key),
    )


def short_code(code: str) -> str:
    """Return the shortest code of a language, without a script: en for eng_Latn, fa for pes, zh for zho_Hans."""
    match = _CODE.fullmatch(code)
    if match is None:
        raise _unknown(code)
    entry = _table().get(match["language"])
    return entry.code if entry else match["language"]


@lru_cache(maxsize=1)
def _table() -> dict[str, _Entry]:
    text = resources.files(__package__).joinpath("languages.tsv").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    table: dict[str, _Entry] = {}
    for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
        sizes = (part.split("=") for part in row["gib"].split())
        entry = _Entry(
            code=row["code"],
            script=row["script"],
            family=row["family"],
            sizes={script: None if size == "?" else float(size) for script, size in sizes},
        )
        for code in (entry.code, *row["aliases"].split()):
            assert code not in table, f"languages.tsv has {code} twice"
            table[code] = entry
    return table


def _tag(bare: str, script: str) -> "langcodes.Language":
    import langcodes  # late: it reads its tables

    return langcodes.Language.get(f"{bare}-{script}" if script else bare)


def _outside_the_table(code: str, bare: str, script: str) -> Language:
    tag = _tag(bare, script)
    if not tag.is_valid():
        raise _unknown(code)
    return Language(
        code=code,
        base=bare,
        name=tag.display_name(),
        family="unknown",
        script=script or tag.maximize().script or "unknown",
        in_pretraining=False,
        pretraining_gib=None,
    )


def _unknown(code: str) -> DataError:
    near = difflib.get_close_matches(code.partition("_")[0].lower(), _table(), n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}?" if near else "Write it as the data set does."
    return DataError(f"A language must be an ISO 639 code such as en, eng or eng_Latn, got {code!r}. {hint}")
