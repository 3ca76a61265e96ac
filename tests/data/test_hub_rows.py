"""Rows from the Hub, through the real `datasets` library and a small local server that speaks the Hub's protocol."""

import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from hub_server import HubServer
from pyarrow import parquet

from xlmrxl_train import load_config
from xlmrxl_train.config import DatasetConfig, HubConfig
from xlmrxl_train.data.hub_rows import HubSource

ASK = """
import json, os
from xlmrxl_train.config import DataConfig, DatasetConfig, HubConfig
from xlmrxl_train.data.sources import open_source
from xlmrxl_train.errors import UserError
answers = []
for question in json.loads(os.environ["ASKED"]):
    hub = HubConfig(**question.pop("hub"))
    split, language = question.pop("of")
    columns = question.pop("columns", {"text": "premise", "text_pair": "hypothesis", "label": "label"})
    dataset = DatasetConfig(name="x", languages=["en", "de", "fr"], columns=columns, hub=hub, **question)
    source = open_source(dataset, DataConfig(source="hub"))
    try:
        source.check(split, [language])
        rows = [[row.id, row.values, row.where] for row in source.rows(split, language)]
        answers.append([rows, source.fingerprint(split, language), source.has(split, language), source.kind])
    except UserError as error:
        answers.append(f"{type(error).__name__}: {error}")
print(json.dumps(answers))
"""


def ask(run_python: Callable[..., str], url: str, *questions: dict[str, Any], **environment: str) -> list[Any]:
    printed = run_python(ASK, HF_ENDPOINT=url, ASKED=json.dumps(questions), **environment)
    answers: list[Any] = json.loads(printed.splitlines()[-1])
    return answers


def test_rows_of_two_configurations_and_a_pinned_commit(hub_server: HubServer, run_python: Callable[..., str]) -> None:
    first, second = hub_server.repositories["datasets", "team/nli"]
    nli = {"repository": "team/nli"}
    en, de, pinned, by_column = ask(
        run_python,
        hub_server.url,
        {"hub": nli, "of": ["train", "en"]},
        {"hub": nli, "of": ["test", "de"]},
        {"hub": nli | {"revision": first}, "of": ["test", "de"]},
        {"hub": nli | {"columns": {"label": "hypothesis"}}, "of": ["test", "de"], "columns": {"label": "label"}},
    )
    assert en[0][1] == [
        "1",
        {"text": "en premise 1 again", "text_pair": "train 1", "label": 1},
        "team/nli/en/train row 1",
    ]
    assert len(en[0]) == 4 and en[2:] == [True, "hub"]
    assert [row[1]["text"] for row in de[0]] == ["de premise 0 again", "de premise 1 again", "de premise 2 again"]
    assert [row[1]["text"] for row in pinned[0]] == ["de premise 0", "de premise 1", "de premise 2"]
    assert [row[1] for row in by_column[0]] == [{"label": "test 0"}, {"label": "test 1"}, {"label": "test 2"}]
    assert len({answer[1] for answer in (en, de, pinned, by_column)}) == 4

    # Without a network: what was fetched is there, another commit is not taken for the one that was asked for.
    offline = ask(
        run_python,
        hub_server.url,
        {"hub": nli | {"revision": first}, "of": ["test", "de"]},
        {"hub": nli | {"revision": second}, "of": ["test", "de"]},
        {"hub": {"repository": "team/other"}, "of": ["test", "de"]},
        HF_HUB_OFFLINE="1",
    )
    given = [answer for answer in offline[:2] if isinstance(answer, list)]
    assert len(given) == 1 and given[0][1] in (pinned[1], de[1])
    refused = next(answer for answer in offline[:2] if isinstance(answer, str))
    assert refused.startswith("ConfigError: dataset.hub.revision: team/nli at revision ")
    assert refused.endswith("Fetch it on a machine with a network.")
    assert offline[2].startswith("ConfigError: dataset.hub: team/other/de/test at revision main was looked for in ")
    assert offline[2].endswith("Fetch it on a machine with a network, or name a local folder.")


def test_a_part_of_a_split(hub_server: HubServer, run_python: Callable[..., str]) -> None:
    nli = {"repository": "team/nli", "train": "train[:75%]", "validation": "train[75%:]"}
    first, rest = ask(
        run_python, hub_server.url, {"hub": nli, "of": ["train", "en"]}, {"hub": nli, "of": ["validation", "en"]}
    )
    assert [row[1]["text_pair"] for row in first[0]] == ["train 0", "train 1", "train 2"]
    assert [row[1]["text_pair"] for row in rest[0]] == ["train 3"] and first[1] != rest[1]
    assert rest[0][0][2] == "team/nli/en/train[75%:] row 0"


def test_rows_of_a_language_are_known_by_their_ids(hub_server: HubServer, run_python: Callable[..., str]) -> None:
    prefixes = {"en": "en premise 0", "de": "en premise 2", "fr": "fr"}  # all in the configuration "en"
    hub = {"repository": "team/nli", "configuration": "en", "id_prefixes": prefixes}
    en, de, fr = ask(
        run_python,
        hub_server.url,
        *({"hub": hub, "of": ["test", code], "id_column": "premise"} for code in ("en", "de", "fr")),
    )
    assert [row[0] for row in en[0]] == ["en premise 0 again"] and en[0][0][2] == "team/nli/en/test row 0"
    assert [row[0] for row in de[0]] == ["en premise 2 again"] and de[0][0][2] == "team/nli/en/test row 2"
    assert en[1] != de[1]
    assert fr == (
        "DataError: team/nli/en/test: expected rows whose id begins with 'fr', found none. "
        "Check dataset.hub and dataset.languages."
    )


def test_faults(hub_server: HubServer, run_python: Callable[..., str]) -> None:
    nli, url = {"repository": "team/nli"}, hub_server.url
    answers = ask(
        run_python,
        url,
        {"hub": nli, "of": ["test", "fr"]},
        {"hub": nli | {"test": "testing"}, "of": ["test", "en"]},
        {"hub": nli | {"test": None}, "of": ["test", "en"]},
        {"hub": nli, "of": ["test", "en"], "columns": {"text": "sentence"}},
        {"hub": nli, "of": ["test", "en"], "language_column": "hypothesis"},
        {"hub": nli, "of": ["test", "en"], "id_column": "label"},
        {"hub": nli | {"revision": "v9"}, "of": ["test", "en"]},
        {"hub": {"repository": "team/none"}, "of": ["test", "en"]},
        {"hub": {"repository": "team/gated"}, "of": ["test", "en"]},
    )
    asked = f"at revision main was asked for at {url}"
    assert answers[:5] == [
        "ConfigError: dataset.hub: team/nli at revision main has no configuration 'fr'; it has en, de. "
        "Set dataset.hub, or choose other languages.",
        "ConfigError: dataset.hub: team/nli at revision main has no split 'testing'; it has train, validation, test. "
        "Set dataset.hub, or choose other languages.",
        "DataError: team/nli: expected a test split, found none in dataset.hub.test. "
        "Name the Hub's split there, or choose another source.",
        "DataError: team/nli/en/test: expected a column 'sentence', found 'premise', 'hypothesis', 'label'. "
        "Set dataset.columns, or the columns, column_names, header and separator of its files.",
        "DataError: team/nli/en/test: expected rows of en in column 'hypothesis', found none. "
        "Check dataset.hub and dataset.languages.",
    ]
    assert isinstance(answers[5], list) and [row[0] for row in answers[5][0]] == ["0", "1", "2"]
    assert answers[6:] == [
        f"ConfigError: dataset.hub: team/nli/en/test at revision v9 was asked for at {url}, "
        "which has the repository but no such revision. Name a commit, tag or branch.",
        f"ConfigError: dataset.hub: team/none/en/test {asked}, which has no such repository or hides it. "
        "Check the name; for a private one set HF_TOKEN.",
        f"ConfigError: dataset.hub: team/gated/en/test {asked}, which wants its terms accepted. "
        "Accept them on its page there and set HF_TOKEN.",
    ]


def test_has_needs_no_network() -> None:
    source = HubSource(DatasetConfig(languages=["en"]), HubConfig(repository="a/b", test=None))
    assert source.has("train", "en") and not source.has("test", "en") and not source.has("train", "de")
    assert source.stand_ins("train", "en") == []


def test_a_split_may_be_missing_in_some_languages() -> None:
    hub = HubConfig(repository="a/b", missing={"validation": ["th"]})
    source = HubSource(DatasetConfig(languages=["en", "th"]), hub)
    assert source.has("validation", "en") and source.has("test", "th") and not source.has("validation", "th")


def test_configurations_may_be_named_after_languages() -> None:
    udpos = load_config(["recipe=udpos"]).dataset
    assert udpos.hub is not None
    source = HubSource(udpos, udpos.hub)
    named = [source._configuration(code) for code in udpos.languages]
    assert (
        named
        == """udpos.English udpos.Afrikaans udpos.Arabic udpos.Bulgarian udpos.German udpos.Greek udpos.Spanish
    udpos.Estonian udpos.Basque udpos.Persian udpos.Finnish udpos.French udpos.Hebrew udpos.Hindi udpos.Hungarian
    udpos.Indonesian udpos.Italian udpos.Japanese udpos.Kazakh udpos.Korean udpos.Marathi udpos.Dutch udpos.Portuguese
    udpos.Russian udpos.Tamil udpos.Telugu udpos.Thai udpos.Tagalog udpos.Turkish udpos.Urdu udpos.Vietnamese
    udpos.Yoruba udpos.Chinese""".split()
    )


def test_rows_of_a_configuration_named_after_a_language(hub_server: HubServer, run_python: Callable[..., str]) -> None:
    """The Hub's layout of UDPOS: numbers for tags."""
    file = io.BytesIO()
    parquet.write_table(pa.table({"tokens": [["Das", "Rad"]], "pos_tags": [[5, 7]]}), file)
    folder = "udpos.German"
    card = f"---\nconfigs:\n- config_name: {folder}\n  data_files:\n  - split: test\n    path: {folder}/test-*\n---\n"
    hub_server.commit(
        "datasets", "team/pos", {"README.md": card.encode(), f"{folder}/test-00000-of-00001.parquet": file.getvalue()}
    )
    hub = {"repository": "team/pos", "configuration": "udpos.{language_name}", "columns": {"tags": "pos_tags"}}
    columns = {"tokens": "tokens", "tags": "tags"}
    [german] = ask(run_python, hub_server.url, {"hub": hub, "of": ["test", "de"], "columns": columns})
    assert german[0] == [["0", {"tokens": ["Das", "Rad"], "tags": [5, 7]}, "team/pos/udpos.German/test row 0"]]
