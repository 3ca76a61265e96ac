"""Secrets are found by their variable, their place in an address, their shape and their key; the rest stays."""

import io

import pytest

from xlmrxl_train.cli.compose import load_config
from xlmrxl_train.config import to_dict
from xlmrxl_train.track.console import Console
from xlmrxl_train.track.secrets import redact


@pytest.mark.parametrize(
    "name",
    ["WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "CLIENT_SECRET", "PGPASSWORD", "DB_PASSWORD", "hf_token"],
)
def test_values_of_the_environment(name, monkeypatch) -> None:
    monkeypatch.setenv(name, "correct horse 12")
    assert redact({"a": ["x correct horse 12 y", 3], "b": None}) == {"a": ["x *** y", 3], "b": None}


def test_a_secret_that_contains_another(monkeypatch) -> None:
    monkeypatch.setenv("A_KEY", "abcdefgh")
    monkeypatch.setenv("B_KEY", "abcdefghijkl")
    assert redact("abcdefghijkl abcdefgh") == "*** ***"


def test_what_is_no_secret_stays(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SSL_KEY", str(tmp_path))  # a file's place
    monkeypatch.setenv("COLOR_KEY", "en")  # too short
    monkeypatch.setenv("MONKEY", "entailment")
    text = f"{tmp_path} en entailment 3fd1c6e0a4b5978f3fd1c6e0a4b5978f3fd1c6e0 https://example.org/a@b hf_home ask-me"
    assert redact(text) == text
    values = {"tokens": "a", "columns": {"text": "tokens"}, "keys": "b", "token": "x", "tokenizer": {"path": "t"}}
    assert redact(values) == values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:pass-word@host.org/x", "https://***@host.org/x"),
        ("git clone https://ghtoken@host.org/x.git", "git clone https://***@host.org/x.git"),
        ("s3://b/x?X-Amz-Signature=abc&part=2", "s3://b/x?X-Amz-Signature=***&part=2"),
        ("http://h/x?api_key=1234;", "http://h/x?api_key=***"),
        ("hf_" + "a1B2" * 8, "***"),
        ("key sk-" + "abcd1234" * 3 + ".", "key ***."),
        ("github_pat_" + "11ABCDEFG" * 4, "***"),
        ("AKIAABCDEFGHIJKLMNOP", "***"),
    ],
)
def test_addresses_and_shapes(text, expected) -> None:
    assert redact(text) == expected


def test_keys_of_dictionaries() -> None:
    assert redact({"api_key": "short", "hf_token": "", "password": "p", "n_token": 3}) == {
        "api_key": "***",
        "hf_token": "",
        "password": "***",
        "n_token": 3,
    }


def test_a_configuration_without_secrets_is_unchanged() -> None:
    for recipe in ("demo", "xnli"):
        values = to_dict(load_config([f"recipe={recipe}"]))
        assert redact(values) == values


def test_the_console_says_no_secret(monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "correct-horse-12")
    console = Console()
    console.rich.file = io.StringIO()
    console.say("cannot read https://u:p@host with correct-horse-12")
    assert console.rich.file.getvalue() == "cannot read https://***@host with ***\n"
