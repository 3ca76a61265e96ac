"""Every YAML file of conf/ and recipes/ composes; every key says what it is; every recipe has its card."""

from pathlib import Path

import pytest
import yaml

from xlmrxl_train.checks import CHOICES
from xlmrxl_train.checks.tasks import WITHOUT_TRAINING
from xlmrxl_train.cli.compose import load_config, load_run_config
from xlmrxl_train.cli.typed import keys_of
from xlmrxl_train.config import VARIANTS, Config, from_dict, leaves, to_dict
from xlmrxl_train.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[1]
CONF = sorted(path for path in (REPOSITORY / "conf").glob("*/**/*.yaml") if path.parent.name != "search")
RECIPES = sorted((REPOSITORY / "recipes").rglob("*.yaml"))
CARD = ("source:", "published:", "ours:", "machine:", "command:")


def choice(path: Path) -> str:
    group, _, option = path.relative_to(REPOSITORY / "conf").with_suffix("").as_posix().partition("/")
    return f"{group}={option}"


def recipe(path: Path) -> str:
    return path.relative_to(REPOSITORY / "recipes").with_suffix("").as_posix()


@pytest.mark.parametrize("path", RECIPES, ids=recipe)
def test_recipe_composes(path: Path) -> None:
    config = load_config([f"recipe={recipe(path)}"])
    assert config.run.recipe == recipe(path)
    assert config.run.dir == f"runs/{recipe(path)}/seed-1"


WITHOUT_FILES = ("bucc",)  # not among the data that tests may read
DATASET_OF = {
    "masked_language_modelling": "sample_parallel",
    "causal_language_modelling": "sample_parallel",
    "multiple_choice": "copa",
    "question_answering": "squad",
    "retrieval": "tatoeba",
    "token_classification": "udpos",
    "translation": "tatoeba_pairs",
}


def languages_to_train(kind: str) -> str:
    return "[]" if kind in WITHOUT_TRAINING else "[all]"


def kind_of(dataset: str) -> str:
    return yaml.safe_load((REPOSITORY / "conf" / "dataset" / f"{dataset}.yaml").read_text(encoding="utf-8"))["kind"]


@pytest.mark.parametrize("path", CONF, ids=choice)
def test_choice_composes(path: Path) -> None:
    overrides = {"recipe": "demo", "data.source": "auto", "task.max_length": "384"}
    group, _, option = choice(path).partition("=")
    overrides[group] = option
    if group == "dataset":
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind = values.get("kind") or kind_of(values["defaults"][0])
        overrides |= {"task": kind, "train.languages": languages_to_train(kind)}
    if group == "task":
        overrides["dataset"] = DATASET_OF.get(option, "sample_nli")
        overrides["train.languages"] = languages_to_train(option)
    if group == "tuning":
        overrides["model.path"] = "runs/demo_pretrain/seed-1"
    if option == "zero3_nvme":
        overrides["strategy.nvme_path"] = "/fast"
    config = load_config([f"{key}={value}" for key, value in overrides.items()])
    section = getattr(config, group)
    if group in VARIANTS:
        assert type(section) is VARIANTS[group][option]
    for key, value in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items():
        if isinstance(value, str | int) and "${" not in str(value) and not (group == "model" and key == "path"):
            assert getattr(section, key) == value


@pytest.mark.parametrize("path", CONF, ids=choice)
def test_choice_has_a_title(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and len(first) <= 120


@pytest.mark.parametrize("path", RECIPES, ids=recipe)
def test_recipe_has_a_card(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    card = [line for line in lines if line.startswith("#")]
    assert lines[0].startswith("# ")
    for item in CARD:
        assert any(line.startswith(f"# {item}") for line in card), f"the card lacks '# {item}'"
    command = next(line for line in card if line.startswith("# command:"))
    assert f"recipe={recipe(path)}" in command.split()


def test_every_key_has_a_help_text() -> None:
    for chosen in [{group: kind} for group, variants in VARIANTS.items() for kind in variants.values()]:
        assert [key.name for key in keys_of(Config, chosen) if not key.help] == []


def test_help_names_every_choice() -> None:
    texts = {key.name: key.help for key in keys_of(Config, {})}
    for name, choices in CHOICES.items():
        assert all(choice in texts[name] for choice in choices), name


def test_every_variant_has_a_file_and_every_file_a_variant() -> None:
    for group, variants in VARIANTS.items():
        assert {path.stem for path in (REPOSITORY / "conf" / group).glob("*.yaml")} == set(variants)


@pytest.mark.parametrize("path", RECIPES, ids=recipe)
def test_config_yaml_reads_back(path: Path, tmp_path: Path) -> None:
    config = load_config([f"recipe={recipe(path)}", f"run.dir={tmp_path}"])
    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    assert from_dict(yaml.safe_load(text)) == config
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    assert load_run_config(tmp_path) == config


def test_an_unknown_key_of_a_stored_configuration_is_named() -> None:
    values = to_dict(load_config(["recipe=demo"]))
    values["train"]["speed"], values["dataset"]["files"], values["colour"] = 1, {"train": [{"pth": "x"}]}, 2
    with pytest.raises(ConfigError) as caught:
        from_dict(values)
    assert str(caught.value) == "colour is not a key of this version. Remove it."
    del values["colour"]
    with pytest.raises(
        ConfigError, match=r"^dataset\.files\.train\.0\.pth is not a key of this version\. Remove it\.$"
    ):
        from_dict(values)
    del values["dataset"]
    with pytest.raises(ConfigError, match=r"^train\.speed is not a key of this version\. Remove it\.$"):
        from_dict(values)


def test_names_that_others_script_against() -> None:
    wanted = """model.path model.hidden_size model.num_hidden_layers model.num_attention_heads model.intermediate_size
    model.vocab_size model.hidden_dropout_prob model.attention_probs_dropout_prob tokenizer.path data.source data.root
    data.limit train.languages train.epochs train.max_steps train.batch_size train.tokens_per_micro_batch
    train.precision train.recompute train.checkpoint_every train.max_hours evaluate.languages evaluate.every
    optimizer.lr seed run.name run.dir run.resume"""
    assert set(wanted.split()) <= dict(leaves(load_config(["recipe=demo"]))).keys()


def test_the_shapes_of_the_models() -> None:
    shape = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "path")
    shapes = {
        name: tuple(getattr(load_config(["recipe=xnli", f"model={name}"]).model, key) for key in shape)
        for name in ("tiny", "mini", "xl", "xxl")
    }
    assert shapes["tiny"][:2] == (2, 64) and shapes["tiny"][-1] is None
    assert shapes["mini"][:2] == (6, 256) and shapes["mini"][-1] is None
    assert shapes["xl"] == (36, 2560, 32, 10240, "facebook/xlm-roberta-xl")
    assert shapes["xxl"] == (48, 4096, 32, 16384, "facebook/xlm-roberta-xxl")


OF_THE_USER = {"text", "translations"}  # data sets whose files only a user has


@pytest.mark.parametrize(
    "dataset", sorted({path.stem for path in (REPOSITORY / "conf" / "dataset").glob("*.yaml")} - OF_THE_USER)
)
def test_files_of_a_data_set_exist(dataset: str, shared_data: Path) -> None:
    """Every file that `files` or `sample` names is there, for every language it is said to hold."""
    values = yaml.safe_load((REPOSITORY / "conf" / "dataset" / f"{dataset}.yaml").read_text(encoding="utf-8"))
    kind = values.get("kind") or kind_of(values["defaults"][0])
    words = [f"train.languages={languages_to_train(kind)}", "data.source=auto", "task.max_length=384"]
    settings = load_config(["recipe=demo", f"dataset={dataset}", f"task={kind}", *words]).dataset
    roots = {"files": shared_data, "sample": REPOSITORY / "xlmrxl_train" / "data" / "sample"}
    for source, root in roots.items():
        splits = getattr(settings, source)
        for files in [] if splits is None else [*splits.train, *splits.validation, *splits.test]:
            if dataset in WITHOUT_FILES:
                continue
            for language in files.languages or settings.languages:
                assert language in settings.languages
                for path in files.parallel.values() or [files.path]:
                    assert (root / path.replace("{language}", language)).is_file()
