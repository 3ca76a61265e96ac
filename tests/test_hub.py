"""Names and paths become local files. The Hub itself: tests/data/test_hub_models.py."""

from pathlib import Path

import pytest

from xlmrxl_train import hub
from xlmrxl_train.errors import ConfigError


def model_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_a_folder_is_itself(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    assert hub.resolve_model(str(folder)) == folder


def test_a_run_folder_means_its_model(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "run" / "model")
    (folder / "tokenizer.json").write_text("{}")
    assert hub.resolve_model(str(tmp_path / "run")) == folder
    assert hub.resolve_tokenizer(str(tmp_path / "run")) == folder / "tokenizer.json"


def test_a_relative_name_that_exists_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_folder(tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    assert hub.resolve_model("owner/name") == Path("owner/name")


@pytest.mark.parametrize("path", ["./none", "/none", "~/none-of-these", "runs/xnli/seed-1"])
def test_a_path_that_is_missing_is_not_asked_of_the_hub(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        hub.resolve_model(path)
    assert str(caught.value) == f"model.path: folder not found: {path} (looked from {tmp_path}). Check the path."
    with pytest.raises(ConfigError, match=r"^tokenizer\.path: file or folder not found: "):
        hub.resolve_tokenizer(path)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    wants = "model.path must be a folder with config.json and weights, got"
    with pytest.raises(ConfigError) as caught:
        hub.resolve_model(str(tmp_path))
    assert str(caught.value) == f"{wants} {tmp_path}: it has no config.json."
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError) as caught:
        hub.resolve_model(str(tmp_path))
    assert str(caught.value) == f"{wants} {tmp_path}: it has no weights (*.safetensors or pytorch_model*.bin)."
    with pytest.raises(ConfigError, match=r"model\.path must be a folder, a run folder or a Hub id, got the file "):
        hub.resolve_model(str(tmp_path / "config.json"))


def test_tokenizer_files_in_order_of_preference(tmp_path: Path) -> None:
    for name in reversed(hub.TOKENIZER_FILES):
        (tmp_path / name).write_bytes(b"")
        assert hub.resolve_tokenizer(str(tmp_path)) == tmp_path / name
    assert hub.resolve_tokenizer(str(tmp_path / "tokenizer.json.gz")) == tmp_path / "tokenizer.json.gz"


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        hub.resolve_tokenizer(str(tmp_path))
    assert str(caught.value) == (
        "tokenizer.path must hold tokenizer.json, tokenizer.json.gz or sentencepiece.bpe.model, "
        f"got {tmp_path}, which has none of them. Name a file, or a folder or Hub id that has one."
    )
