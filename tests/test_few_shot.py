"""A few labelled examples of target languages: which they are, where they come from, what is said of them."""

import json
from pathlib import Path

import pytest

from xlmrxl_train import evaluate, load_config, train
from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.session import Session
from xlmrxl_train.stop import StopRequest
from xlmrxl_train.training.batches import StepBatches

QUICK = [
    "recipe=demo",
    "data.limit=20",
    "train.shots=3",
    "train.epochs=2",
    "train.batch_size=8",
    "evaluate.languages=[en,de,sw]",
    "evaluate.bootstrap=0",
    "evaluate.every=2",
    "model.hidden_dropout_prob=0.1",
]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLMRXL_CACHE", str(tmp_path_factory.getbasetemp() / "few_shot_cache"))


def opened(*words: str) -> Session:
    return Session.open(load_config([*QUICK, *words]), training=True)


def ids(session: Session, split: str, language: str) -> list[str]:
    return session.corpus(split, [language]).tables[0].ids


def test_shots_are_drawn_beside_the_whole_source_language() -> None:
    session = opened("train.shot_split=train")
    assert session.shot_languages == ["de", "sw"]
    corpus = session.corpus("train", ["en", "de", "sw"])
    assert [table.num_examples for table in corpus.tables] == [20, 3, 3]
    assert corpus.tables[1].ids == session.shots["de"].ids == session.shots["sw"].ids  # the sample is parallel
    assert session.shots["de"].split == "train"
    whole = opened("train.shots=0", "train.languages=[de]")
    table = whole.corpus("train", ["de"]).tables[0]
    for position, id_ in enumerate(corpus.tables[1].ids):
        assert (
            corpus.tables[1].features_of(position)[0].input_ids == table.features_of(table.ids.index(id_))[0].input_ids
        )
    assert ids(session, "validation", "de") == ids(whole, "validation", "de")
    other = opened("train.shot_split=train", "seed=2")
    other.corpus("train", ["de"])
    assert other.shots["de"].ids != session.shots["de"].ids


def test_shots_of_the_validation_split_are_left_out_of_it_in_every_language() -> None:
    session = opened("train.shot_split=validation", "train.shot_languages=[sw]")
    session.corpus("train", ["en", "sw"])
    drawn = session.shots["sw"]
    assert (drawn.split, len(drawn.ids)) == ("validation", 3)
    whole = opened("train.shots=0")
    for code in ("en", "de", "sw"):  # the same pair in another language is a translation of the shot
        assert ids(session, "validation", code) == [i for i in ids(whole, "validation", code) if i not in drawn.ids]
    assert ids(session, "test", "sw") == ids(whole, "test", "sw")


def test_shots_come_from_the_training_split_where_there_is_one() -> None:
    session = opened("dataset.sample.train.0.languages=[en,de]")
    assert session.shot_splits() == {"de": "train", "sw": "validation"}
    with pytest.raises(ConfigError) as caught:
        opened("dataset.sample.train.0.languages=[en,de]", "train.shot_split=train")
    assert str(caught.value) == (
        "train.shot_languages must have a train split of sample NLI, got sw. "
        "Choose other languages, or another train.shot_split."
    )
    with pytest.raises(ConfigError, match=r"must have a train or validation split of sample NLI, got sw\."):
        opened("dataset.sample.train.0.languages=[en,de]", "dataset.sample.validation.0.languages=[en,de]")


def test_more_shots_than_examples_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        opened("train.shots=21").corpus("train", ["de"])
    assert str(caught.value) == (
        "train.shots=21 asks for more examples than the train split of de has, 20. "
        "Set fewer, or another train.shot_split."
    )
    session = opened("train.shots=20", "train.shot_split=validation")
    session.corpus("train", ["de"])
    with pytest.raises(DataError) as caught:
        session.corpus("validation", ["de"])
    assert str(caught.value) == (
        "validation split of de: expected examples beside the 20 that train.shots takes, got none. "
        "Set fewer, or train.shot_split=train."
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.shots=0", "train.languages=[]"], "train.languages must name at least one language, got none."),
        (["train.languages=[]", "mixture.a=sample_nli"], "train.languages must name at least one language, got none."),
        (
            ["train.shots=0", "train.shot_languages=[de,sw]"],
            "train.shot_languages need train.shots, got 0 for de, sw. Set train.shots.",
        ),
        (
            ["train.shot_languages=[en,de]"],
            "train.shot_languages must not be trained on in whole, got en. Take them out of train.languages, or out "
            "of train.shot_languages.",
        ),
        (
            ["train.languages=[en,de,sw]"],
            "train.shots=3 needs a language that is not trained on in whole, got en, de, sw. Set "
            "train.shot_languages, or train.languages=[<source language>].",
        ),
        (["train.shot_languages=[xx]"], "train.shot_languages must be languages of sample NLI, got xx. It has en, fr"),
        (["train.shot_split=test"], "train.shot_split must be auto | train | validation, got 'test'."),
    ],
)
def test_settings_that_do_not_go_together(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([*QUICK, *words])
    assert any(fault.startswith(message) for fault in caught.value.faults), caught.value.faults


def test_steps_have_shots_by_temperature_whatever_the_number_of_ranks() -> None:
    session = opened("train.shot_split=train")
    corpus = session.corpus("train", ["en", "de", "sw"])

    def steps(temperature: float, ranks: int) -> list[list[tuple[int, int]]]:
        plans = [
            StepBatches(corpus=corpus, task=session.task, seed=1, batch_size=8, token_budget=100, rank=rank,
                        world_size=ranks, temperature=temperature)
            for rank in range(ranks)
        ]  # fmt: skip
        return [
            sorted(place for plan in plans for batch in plan.of_step(step) for place in batch.examples)
            for step in range(2 * plans[0].steps_per_epoch)
        ]

    for temperature in (1.0, 1e9):
        assert steps(temperature, 1) == steps(temperature, 2) == steps(temperature, 3)
    once, evenly = ([place for step in steps(T, 1)[:4] for place in step] for T in (1.0, 1e9))
    assert len(once) == len(set(once)) == len(evenly) == 26
    assert [sum(table == t for table, _ in evenly) for t in (0, 1, 2)] == [9, 9, 8]


@pytest.mark.parametrize("stop_after", [2, 5])
def test_a_few_shot_run_resumed_is_uninterrupted(tmp_path: Path, stop_after: int, monkeypatch) -> None:
    words = [*QUICK, "train.shot_split=validation", "train.sampling_temperature=4", "evaluate.select=best"]

    def run(name: str) -> object:
        return train(load_config([*words, f"run.dir={tmp_path / name}"]))

    assert run("whole") is not None
    calls = 0

    def ask(self: StopRequest) -> bool:
        nonlocal calls
        calls += 1
        if calls == stop_after:
            self.reason = "the test"
        return self.reason is not None

    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__call__", ask)
        assert run("parts") is None
    assert run("parts") is not None
    for name in ("report.json", "model/model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()

    stored = json.loads((tmp_path / "whole/report.json").read_text(encoding="utf-8"))
    protocol = stored["protocol"]
    assert protocol["shots"]["de"] == {"split": "validation", "ids": protocol["shots"]["sw"]["ids"]}
    assert len(protocol["shots"]["de"]["ids"]) == 3
    assert stored["setting"] == "few-shot (k=3) in de, sw, beside all of en; sampling temperature 4"
    page = (tmp_path / "whole/report.md").read_text(encoding="utf-8")
    assert "| de | German (3 shots) |" in page and "Shots: 3 of de (validation), 3 of sw (validation);" in page
    events = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    counts = {(event["split"], event["n"]) for event in events if event["event"] == "evaluate"}
    assert counts == {("validation", 17), ("test", 20)}
    again = evaluate(tmp_path / "whole")
    assert again.to_dict()["setting"] == stored["setting"] and again.protocol.shots == protocol["shots"]


def test_shots_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["train.languages=[]", "train.shot_languages=[de]", "evaluate.languages=[de]", "evaluate.select=best"]
    report = train(load_config([*QUICK, *words, f"run.dir={tmp_path / 'run'}"]))
    assert report is not None
    assert report.protocol.setting(["de"]) == "few-shot (k=3) in de, alone"
    assert (report.protocol.select_split, report.protocol.training) == (None, {})
    assert "Trained on shots alone (sample)" in (tmp_path / "run/report.md").read_text(encoding="utf-8")
    said = capfd.readouterr().err
    assert "data    shots of sample NLI: 3 examples," in said
    assert "        3 shots of de, drawn from its train split" in said
