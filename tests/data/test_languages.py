"""The table of languages: every code of the real data, and what is said about wrong ones."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from xlmrxl_train.data.languages import Language, _table, language, short_code
from xlmrxl_train.errors import DataError


def test_codes_as_data_sets_write_them() -> None:
    english = {"base": "en", "name": "English", "family": "Indo-European", "script": "Latn"}
    for code in ("en", "eng", "eng_Latn"):
        assert language(code) == Language(code=code, **english, in_pretraining=True, pretraining_gib=300.8)
    assert language("zh").script == language("zho_Hans").script == "Hans"
    assert (language("zh").name, language("zho_Hans").name) == ("Chinese", "Chinese (Simplified)")
    assert language("zho_Hant").pretraining_gib == 16.6
    assert language("arb_Arab").name == "Arabic" and language("swh_Latn").name == "Swahili"
    assert language("nqo_Nkoo") == Language(
        code="nqo_Nkoo",
        base="nqo",
        name="N’Ko",
        family="Mande",
        script="Nkoo",
        in_pretraining=False,
        pretraining_gib=None,
    )
    assert not language("quy_Latn").in_pretraining and not language("yo").in_pretraining
    assert language("sv").in_pretraining and language("sv").pretraining_gib is None
    assert language("hin_Latn").name == "Hindi (Latin)" and language("hin_Latn").pretraining_gib == 0.5
    assert language("arb_Latn").in_pretraining is False  # Arabic, but not in this script
    assert language("uzn_latn").script == "Latn"
    assert language("no").name == "Norwegian" and language("jpn").family == "Japonic"


def test_every_code_of_the_real_data(shared_data: Path) -> None:
    records = json.loads((shared_data / "MANIFEST.json").read_text())
    fields = {str(record["lang"]) for record in records} - {"all", "100 languages"}
    codes = sorted({code for field in fields for code in field.partition(" (")[0].split(",")})
    assert len(codes) > 200
    languages = [language(code) for code in codes]
    assert all(found.name and re.fullmatch("[A-Z][a-z]{3}", found.script) for found in languages)
    assert [found.code for found in languages if found.family == "unknown"] == []


def test_a_language_outside_the_table_has_a_name() -> None:
    assert language("sco") == Language(
        code="sco",
        base="sco",
        name="Scots",
        family="unknown",
        script="Latn",
        in_pretraining=False,
        pretraining_gib=None,
    )
    assert language("sco_Latn").name.startswith("Scots")


def test_the_table_has_the_hundred_entries_of_the_paper() -> None:
    # 93 languages with one row, Chinese in two scripts, five romanised ones, and Burmese twice under one code.
    entries = {id(entry): entry for entry in _table().values()}.values()
    assert sum(len(entry.sizes) for entry in entries) == 99
    assert len([entry for entry in entries if entry.sizes]) == 93


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (False, "A language must be a code such as en or eng_Latn, got False. In YAML, quote 'no'."),
        (12, "A language must be a code such as en or eng_Latn, got 12. In YAML, quote it."),
        ("xx", "A language must be an ISO 639 code such as en, eng or eng_Latn, got 'xx'. Did you mean xh?"),
        ("EN", "A language must be an ISO 639 code such as en, eng or eng_Latn, got 'EN'. Did you mean en, eng, ben?"),
        (
            "",
            "A language must be an ISO 639 code such as en, eng or eng_Latn, got ''. Write it as the data set does.",
        ),
        (
            "english",
            "A language must be an ISO 639 code such as en, eng or eng_Latn, got 'english'. Did you mean eng?",
        ),
    ],
)
def test_unknown_codes(code: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        language(code)
    assert str(caught.value) == message


def test_import_is_light() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import xlmrxl_train.data.languages\n"
        "print(time.perf_counter() - start, [m for m in ('torch', 'langcodes', 'numpy') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    seconds, modules = printed.split(maxsplit=1)
    assert modules.strip() == "[]"
    assert float(seconds) < 1  # 0.05 on an idle machine


@pytest.mark.parametrize(
    ("code", "short"),
    [("en", "en"), ("eng_Latn", "en"), ("pes", "fa"), ("swh_Latn", "sw"), ("zho_Hant", "zh"), ("ast", "ast")],
)
def test_the_shortest_code(code: str, short: str) -> None:
    assert short_code(code) == short
    with pytest.raises(DataError, match="A language must be an ISO 639 code such as en, eng or eng_Latn, got 'q q'"):
        short_code("q q")
