"""model.embeddings: what a run trains of its words, what it says of it, and what comes out."""

import json
from pathlib import Path

import pytest
import torch
from jobs import WORDS, assert_same, config_of, events, run

from xlmrxl_train import load_config
from xlmrxl_train.cli import main
from xlmrxl_train.data.cache import open_or_build
from xlmrxl_train.data.corpus import Corpus
from xlmrxl_train.data.examples import Feature
from xlmrxl_train.errors import CheckpointError
from xlmrxl_train.model.weights import open_checkpoint
from xlmrxl_train.session import Session, build_model
from xlmrxl_train.training.vocabulary import freeze_embeddings

TABLE = "roberta.embeddings.word_embeddings"
LAST = "checkpoints/step-00000016/tensors"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same run without clipping, once with its own rows trained, as by default, and once with all."""
    folder = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLMRXL_CACHE", str(folder / "cache"))
        run(folder / "active", "train.max_grad_norm=0")
        run(folder / "trainable", "train.max_grad_norm=0", "model.embeddings=trainable")
    return folder / "active", folder / "trainable"


def test_a_run_is_the_same(both: tuple[Path, Path]) -> None:
    active, trainable = both
    ours, theirs = events(active), events(trainable)
    for one, other in zip(ours, theirs, strict=True):
        assert one.pop("grad_norm", 0) == pytest.approx(other.pop("grad_norm", 0), rel=1e-5)
        assert one == other
    assert (active / "report.json").read_bytes() == (trainable / "report.json").read_bytes()
    for file in [*trainable.glob("model/*"), *trainable.glob("predictions/*")]:
        assert (active / file.relative_to(trainable)).read_bytes() == file.read_bytes(), file.name


def test_a_checkpoint_has_the_table_in_two_parts(both: tuple[Path, Path]) -> None:
    active, trainable = (json.loads((folder / LAST / "index.json").read_text()) for folder in both)
    rows, all_rows = active[f"model.{TABLE}.rows"]["shape"][0], trainable[f"model.{TABLE}.weight"]["shape"][0]
    assert 0 < rows < all_rows
    assert active[f"model.{TABLE}.active.weight"]["shape"][0] == rows
    assert active[f"model.{TABLE}.frozen.weight"]["shape"][0] == all_rows - rows
    moments = [name for name in active if name.startswith(f"optimizer.{TABLE}")]
    assert sorted(moments) == [f"optimizer.{TABLE}.active.weight.{moment}" for moment in ("exp_avg", "exp_avg_sq")]


def test_a_run_that_broke_off_goes_on_with_its_rows(reference, copy_of_interrupted, capfd) -> None:
    assert f"model.{TABLE}.rows" in json.loads((reference.folder / LAST / "index.json").read_text())
    assert run(copy_of_interrupted) is not None
    said = capfd.readouterr().err
    rows = 1025 - json.loads((reference.folder / LAST / "index.json").read_text())[
        f"model.{TABLE}.frozen.weight"]["shape"][0]  # fmt: skip
    assert (
        f"vocab   {rows:,} of 1,025 rows are in the training set and trained, with the result of training all; "
        f"saves 0.0 GB of gradients and moments per copy of the model ({1 - rows / 1025:.0%})"
    ) in said
    assert_same(copy_of_interrupted, reference.folder)


def test_a_checkpoint_of_other_rows_is_refused(reference, tmp_path, capfd) -> None:
    checkpoint = reference.folder / "checkpoints/step-00000016"
    with pytest.raises(CheckpointError) as caught:
        run(tmp_path / "run", f"run.resume={checkpoint}", "data.limit=3")
    assert str(caught.value).startswith(
        f"{checkpoint}/tensors must train the same rows of the vocabulary as this run, "
    )
    assert str(caught.value).endswith(
        " of a run on other data. Set model.path to that run's folder to begin from its weights."
    )


def test_frozen_embeddings_come_out_as_they_went_in(reference, tmp_path, capfd) -> None:
    words = [f"model.path={reference.folder}", "model.embeddings=frozen", "train.precision=bf16", "train.epochs=1"]
    assert run(tmp_path / "run", *words) is not None
    assert "vocab   none of the 1,025 rows is trained, nor are positions: model.embeddings=frozen" in (
        capfd.readouterr().err
    )
    before, after = (open_checkpoint(folder / "model") for folder in (reference.folder, tmp_path / "run"))
    for name in before.shapes:
        same = torch.equal(before.read(name), after.read(name))
        assert same == name.startswith("roberta.embeddings."), name


@pytest.mark.parametrize(("recipe", "task", "reason"), [
    ("demo_pretrain", "masked_language_modelling", "every row learns from every target"),
    ("tatoeba", "retrieval", "nothing is trained"),
])  # fmt: skip
def test_rows_cannot_be_left_out_of_every_task(recipe, task, reason, tmp_path, capfd) -> None:
    words = [f"recipe={recipe}", "model=tiny", f"tokenizer.path={config_of(tmp_path).tokenizer.path}"]
    assert main([*words, f"data.root={tmp_path}", f"run.dir={tmp_path / 'run'}", "model.embeddings=active"]) == 2
    assert capfd.readouterr().err.strip() == (
        f"error: model.embeddings must be auto, trainable or frozen for task={task}, got active: {reason}. "
        "Leave it out."
    )


def test_a_wrong_choice_is_named(tmp_path, capfd) -> None:
    assert main([*WORDS, f"run.dir={tmp_path / 'run'}", "model.embeddings=some"]) == 2
    assert "model.embeddings must be auto | trainable | active | frozen, got 'some'." in capfd.readouterr().err


def corpus_of(folder: Path, rows: range) -> Corpus:
    built = [("a", [Feature(example=-1, input_ids=list(rows), columns={})])]
    return Corpus(split="train", languages=["en"], tables=[open_or_build(folder, f"{rows}", lambda: built)])


def test_other_tasks_and_training_sets_train_all_rows(tmp_path) -> None:
    for words, rows, said in (
        (["recipe=demo_pretrain"], range(5), "with task=masked_language_modelling every row learns from every target"),
        (["recipe=demo", "model.path=null"], range(1025), "the training set contains every token"),
    ):
        config = load_config(words)
        task = Session.open(config).task
        model, source = build_model(config, task, task.tokenizer)
        line = freeze_embeddings(config, task, corpus_of(tmp_path, rows), model, source)
        assert line == f"all 1,025 rows are trained: {said}"
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert f"{TABLE}.weight" in dict(model.named_parameters())


def test_what_is_asked_for_is_the_default_here(tmp_path) -> None:
    config = load_config(["recipe=demo", "model.path=null", "model.embeddings=active"])
    strategy = Session.open(config, training=True).strategy(corpus_of(tmp_path, range(5)))
    assert strategy.shapes[f"{TABLE}.active.weight"] == (5, 64)
