"""No false alarm on any recipe whose training data is here: a tiny model learns a few rows of it by heart."""

from pathlib import Path

import pytest
from jobs import events

from xlmrxl_train import load_config, train

REPOSITORY = Path(__file__).parents[2]
TINY = ["model=tiny", "model.initializer_range=0.07", "model.hidden_dropout_prob=0"]
TINY += ["model.attention_probs_dropout_prob=0", f"tokenizer.path={REPOSITORY / 'xlmrxl_train/data/sample'}"]
FEW = ["data.limit=64", "train.batch_size=16", "train.epochs=1000", "train.max_steps=220", "train.log_every=1"]
FEW += ["train.precision=fp32", "optimizer.lr=2e-3", "evaluate.every=110", "evaluate.test=false", "evaluate.html=false"]
FEW += ["evaluate.bootstrap=0"]

UNSEEN = ["evaluate.every=0"]  # language models, whose validation is no prediction
WORDS = {
    "demo": [],
    "demo_pretrain": UNSEEN,
    "xnli": ["task.max_length=128"],
    "xnli_few_shot": ["train.shots=2", "data.limit=16", "evaluate.languages=[en,de,sw]"],
    "xnli_translate_train": ["data.limit=4"],
    "paws_x": ["task.max_length=128"],
    "sib200": ["evaluate.languages=[eng_Latn]"],
    "panx": [],
    "udpos": [],
    "tydiqa": ["task.max_length=128", "task.stride=64", "data.limit=4", "train.batch_size=4"],
    "xcopa": ["evaluate.languages=[it]"],
    "mlm": ["dataset=udhr", "task.max_length=128", *UNSEEN],
    "clm": ["dataset=udhr", "task.max_length=128", *UNSEEN],
    "tlm": ["dataset=xnli_pairs", "task.max_length=128", *UNSEEN],
    "translation": ["train.languages=[deu]", "evaluate.languages=[deu]", *UNSEEN],
}
WORDS |= {f"xtreme/{name}": WORDS[name] for name in ("xnli", "paws_x", "panx", "udpos", "tydiqa")}
WITHOUT = {"siqa", "belebele", "xquad", "mlqa", "tatoeba", "tatoeba_112", "bucc"}  # data, or training
WITHOUT |= {"xtreme/xquad", "xtreme/mlqa", "xtreme/tatoeba", "xtreme/bucc"}


def healthy(folder: Path, recipe: str, *words: str) -> None:
    """Train; the loss must fall, and the guard say nothing."""
    more = WORDS.get(recipe, [])
    if not any(word.startswith(("evaluate.languages", "evaluate.every")) for word in more):
        more = [*more, "evaluate.languages=[en]"]
    train(load_config([f"recipe={recipe}", f"run.dir={folder}", "model.path=null", *TINY, *FEW, *more, *words]))
    losses = [event["loss"] for event in events(folder) if event["event"] == "train"]
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10]), losses
    assert [event for event in events(folder) if event["event"] == "guard"] == []


def test_every_recipe_is_here() -> None:
    found = {
        path.relative_to(REPOSITORY / "recipes").with_suffix("") for path in (REPOSITORY / "recipes").rglob("*.yaml")
    }
    assert {path.as_posix() for path in found} == {*WORDS, *WITHOUT, "xnli_lora"}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["demo", "demo_pretrain"])
def test_no_false_alarm_on_the_sample(tmp_path, recipe) -> None:
    healthy(tmp_path / "run", recipe)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [recipe for recipe in WORDS if not recipe.startswith("demo")])
def test_no_false_alarm_on_real_data(tmp_path, shared_data, recipe) -> None:
    healthy(tmp_path / "run", recipe, f"data.root={shared_data}")
    if recipe == "xnli":
        words = [f"model.path={tmp_path / 'run'}", "train.precision=bf16", "data.limit=128", *WORDS["xnli"]]
        healthy(tmp_path / "adapted", "xnli_lora", f"data.root={shared_data}", *words)
