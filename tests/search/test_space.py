"""A search in YAML is typed and checked: every fault names the file and the key."""

from pathlib import Path

import pytest
import yaml

from xlmrxl_train.cli.compose import compose_config
from xlmrxl_train.cli.library import Library, library
from xlmrxl_train.cli.search_space import read_search
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.search.space import Choices, Range, Search

CONF = Path(__file__).resolve().parents[2] / "conf" / "search"


FILES = library()
DEMO = compose_config(["recipe=demo"], FILES)[0]


def read(word: str, *overrides: str, recipe: str = "demo", files: Library = FILES) -> Search:
    words = [f"recipe={recipe}", *overrides]
    config = DEMO if words == ["recipe=demo"] else compose_config(words, files)[0]
    return read_search(word, config, words, files)


def test_shipped_searches_suit_recipes() -> None:
    search = read("fine_tuning")
    assert search.space["optimizer.lr"] == Range(low=2e-4, high=5e-3, log=True)  # the recipe has 1e-3
    assert search.space["train.batch_size"] == Choices(examples=("16", "32", "64", "128"))
    xnli = read("fine_tuning", recipe="xnli")
    assert xnli.space["optimizer.lr"].examples == ("1e-06", "2.5e-05")  # 5e-6 there
    assert (xnli.sampler, xnli.pruner, xnli.startup, xnli.grace) == ("tpe", "median", 5, 1)
    assert set(read("lora", recipe="xnli_lora").space) == {
        "optimizer.lr", "tuning.rank", "tuning.dropout", "schedule.warmup", "train.batch_size"
    }  # fmt: skip
    for path in CONF.glob("*.yaml"):
        assert path.read_text(encoding="utf-8").startswith("# ")


def test_a_key_of_the_command_line_is_not_searched() -> None:
    assert "train.batch_size" not in read("fine_tuning", "train.batch_size=32").space


def test_whole_numbers_groups_and_lists(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    values = {
        "sampler": "random",
        "grace": 0,
        "space": {
            "train.batch_size": {"low": 16, "high": 64, "step": 16},
            "schedule": {"choices": ["linear", "cosine"]},
            "train.languages": {"choices": [["en"], ["en", "de"]]},
            "model.classifier_dropout": {"choices": [None, 0.1]},
        },
    }
    (tmp_path / "search" / "mine.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    search = read("mine", files=library(tmp_path))
    assert search.space["train.batch_size"] == Range(low=16, high=64, step=16, whole=True)
    assert search.space["train.batch_size"].text(48) == "48"
    assert search.space["train.languages"].examples == ("[en]", "[en, de]")
    assert search.space["model.classifier_dropout"].examples == ("null", "0.1")
    assert (search.sampler, search.grace) == ("random", 0)
    assert Range(low=1e-6, high=1e-4).text(1.23456e-5) == "1.235e-05"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("spaces: {}", "spaces is not a key of a search. Did you mean space?"),
        ("sampler: bayes", "sampler must be tpe | random, got bayes."),
        ("pruner: false", "pruner must be median | none, got false."),
        ("startup: -1", "startup must be 0 or more, got -1."),
        ("grace: soon", "grace must be a whole number, got soon."),
        ("space: [seed]", "space must map keys to what may be drawn, got [seed]. Write space: {optimizer.lr: ...}."),
        ("space: {optimizer.lr: 1}",
         "space[optimizer.lr] must be {low: ..., high: ...} or {choices: [...]}, got 1."),
        ("space: {optimizr.lr: {low: 1, high: 2}}", "space: optimizr.lr is not a key. Did you mean optimizer.lr?"),
        ("space: {optimizer.lr: {lo: 1, high: 2}}", "space[optimizer.lr] has no lo. Did you mean low?"),
        ("space: {optimizer.lr: {low: x, high: 2}}", "space[optimizer.lr].low must be a finite number or null, got x."),
        ("space: {optimizer.lr: {low: 1}}", "space[optimizer.lr] must have low and high, or choices, and not both."),
        ("space: {optimizer.lr: {low: 2, high: 1}}",
         "space[optimizer.lr] must have a low below its high, got 2 and 1."),
        ("space: {optimizer.lr: {low: 0, high: 1, log: true}}",
         "space[optimizer.lr] must have a low above 0 with log, got 0."),
        ("space: {optimizer.lr: {low: 1, high: 2, step: 0}}", "space[optimizer.lr] must have a step above 0, got 0.0."),
        ("space: {optimizer.lr: {low: 1, high: 2, step: 1, log: true}}",
         "space[optimizer.lr] must have log or a step, not both."),
        ("space: {train.batch_size: {low: 1.5, high: 3}}", "space[train.batch_size] must have whole numbers."),
        ("space: {train.batch_size: {low: 1, high: 3, relative: true}}",
         "space[train.batch_size].relative needs a key that is a number above 0 here, got 32. Leave it out."),
        ("space: {schedule.name: {low: 1, high: 3}}",
         "space[schedule.name] must be choices, for this key is no number."),
        ("space: {evaluate.select: {choices: [best, last]}}",
         "space[evaluate.select] cannot be searched: trials must be scored on the same data. Remove it."),
        ("space: {schedule.warmup: {low: -1, high: 1}}", "space: schedule.warmup must be 0 or more, got -1.0."),
        ("space: {optimizer.layer_decay: {low: 0.5, high: 2}}",
         "space: optimizer.layer_decay must be above 0 and at most 1, got 2.0."),
        ("space: {schedule: {choices: [linear, straight]}}",
         "space: schedule=straight is not a choice. There are constant, cosine, linear."),
    ],
)  # fmt: skip
def test_a_fault_names_its_key(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text if "space: " in text else f"{text}\nspace: {{seed: {{low: 1, high: 3}}}}", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read(str(path))
    assert caught.value.faults == (f"{path}: {fault}",)


def test_a_search_must_be_found_and_leave_something_to_search(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read("fine_tunning")
    assert str(caught.value) == (
        "--search must be a name in conf/search/ or the path of a .yaml, got fine_tunning. Did you mean fine_tuning?"
    )
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read as YAML: "):
        read(str(tmp_path / "none.yaml"))
    (tmp_path / "one.yaml").write_text("space: {seed: {low: 1, high: 3}}", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read(str(tmp_path / "one.yaml"), "seed=2")
    assert str(caught.value).endswith(
        "one.yaml: space has no key that the command line does not set. Leave one of them out there."
    )
