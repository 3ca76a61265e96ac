"""Training on other data sets than the one that is evaluated, and on several of them together."""

import json
from pathlib import Path

import pytest
import yaml

from xlmrxl_train import load_config, train
from xlmrxl_train.checks import faults_of
from xlmrxl_train.cli import main
from xlmrxl_train.cli.compose import load_run_config
from xlmrxl_train.cli.sweep import plan
from xlmrxl_train.config import from_dict, leaves, to_dict
from xlmrxl_train.errors import ConfigError, DataError, RunError
from xlmrxl_train.evaluation.report import Report
from xlmrxl_train.session import Session

QUICK = [
    "recipe=demo",
    "data.limit=8",
    "train.epochs=1",
    "train.batch_size=8",
    "evaluate.languages=[sw]",
    "evaluate.every=0",
    "evaluate.bootstrap=0",
]
# Reviews with a verdict in two languages: other columns and other words for the labels than the sample's.
OWN = {
    "name": "reviews",
    "kind": "sequence_classification",
    "languages": ["en", "no"],
    "columns": {"text": "body", "label": "verdict"},
    "labels": ["entailment", "neutral", "contradiction"],
    "label_values": {"yes": "entailment", "perhaps": "neutral"},
    "files": {"train": [{"path": "{language}.tsv", "stand_in": "reviews instead of pairs"}]},
    "sample": {"train": [{"path": "nli/train-{language}.tsv.gz", "languages": ["en"]}]},
}
ROWS = "body\tverdict\ngood\tyes\nwell\tperhaps\nbad\tcontradiction\n"
BOTH = ["data.source=auto", "data.root=.", "tokenizer.path=tok", "mixture.nli=sample_nli", "mixture.own=reviews"]
SAMPLE = Path(__file__).parents[1] / "xlmrxl_train/data/sample"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of choices with the data set `reviews`, in a working folder with its files."""
    (tmp_path / "conf/dataset").mkdir(parents=True)
    (tmp_path / "conf/dataset/reviews.yaml").write_text(yaml.safe_dump(OWN), encoding="utf-8")
    (tmp_path / "tok").symlink_to(SAMPLE)
    for code in ("en", "no"):
        (tmp_path / f"{code}.tsv").write_text(ROWS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "conf"


# Composition


@pytest.mark.parametrize("word", ["mixture.more=xnli", "+dataset@mixture.more=xnli", "dataset@mixture.more=xnli"])
def test_a_data_set_is_put_into_the_mixture_by_name(word: str) -> None:
    config = load_config(["recipe=demo", "mixture.nli=sample_nli", word, "mixture.more.languages=[en,fr]"])
    assert {name: data.name for name, data in config.mixture.items()} == {"nli": "sample NLI", "more": "XNLI"}
    assert config.mixture["more"].languages == ["en", "fr"] and config.dataset.name == "sample NLI"


def test_a_recipe_has_a_mixture_that_the_command_line_changes(own: Path) -> None:
    (own / "recipe").mkdir()
    text = "defaults:\n  - demo\n  - /dataset@mixture.nli: sample_nli\n  - _self_\n"
    (own / "recipe/joint.yaml").write_text(text, encoding="utf-8")

    def names(*words: str) -> dict[str, str]:
        config = load_config(["recipe=joint", "data.source=auto", *words], config_dir=own)
        return {name: data.name for name, data in config.mixture.items()}

    assert names() == {"nli": "sample NLI"}
    assert names("mixture.nli=reviews", "mixture.more=xnli") == {"nli": "reviews", "more": "XNLI"}
    assert names("~mixture.nli") == {}


def test_a_mixture_survives_its_file(tmp_path: Path) -> None:
    config = load_config(["recipe=demo", "mixture.nli=xnli", f"run.dir={tmp_path}"])
    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    assert from_dict(yaml.safe_load(text)) == config
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    assert load_run_config(tmp_path) == config
    changed = load_run_config(tmp_path, ["mixture.nli=sample_nli", "mixture.nli.license=other"])
    assert (changed.mixture["nli"].name, changed.mixture["nli"].license) == ("sample NLI", "other")
    assert dict(leaves(config))["mixture.nli.name"] == "XNLI"
    assert dict(leaves(load_config(["recipe=demo"])))["mixture"] == {}


def test_help_and_cfg_know_the_mixture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help", "mixture"]) == 0
    assert capsys.readouterr().out.split()[0] == "mixture={}"
    assert main(["recipe=demo", "mixture.nli=xnli", "--cfg", "job"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["mixture"]["nli"]["name"] == "XNLI"


def test_a_sweep_over_training_sets() -> None:
    jobs = plan(["recipe=demo", "mixture.a=sample_nli,xnli"], None)
    assert [job.folder for job in jobs] == [f"runs/demo/seed-1,mixture.a={name}" for name in ("sample_nli", "xnli")]
    (job,) = plan(["recipe=demo", "mixture.a=glob(sample_n*)"], None)
    assert job.swept == {"mixture.a": "sample_nli"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mixture.a=sample_nl"], "mixture.a=sample_nl is not a choice. Did you mean mixture.a=sample_nli? There are "),
        (["mixture.a.nam=x"], "mixture.a.nam is not a key. Did you mean mixture.a.name?"),
        (["mixture.a={nam: x}"], "mixture.a has no nam. Did you mean name?"),
        (["mixture=xnli"], "mixture must be a mapping, e.g. 'mixture={name: value}', got xnli."),
        (
            ["mixture.a=sample_parallel"],
            "mixture.a must be of the kind that is evaluated, sequence_classification, got "
            "'masked_language_modelling'. Train on it in a run of its own, and begin this one from it with "
            "model.path=<run folder>.",
        ),
        (
            ["mixture.a=paws_x"],
            "mixture.a must have the labels of sample NLI (entailment, neutral, contradiction), in their order, got "
            "different, paraphrase. Map what its files write with mixture.a.label_values.",
        ),
        (
            ["mixture.a=sample_nli", "mixture.a.columns={text: a, label: b, pair: c}"],
            "mixture.a.columns has no role 'pair'. Its roles are text, text_pair, label.",
        ),
        (["mixture.a=sample_nli", "mixture.a.languages=[]"], "mixture.a.languages must name at least one language"),
        (["mixture={a b: {name: x}}"], "mixture.a b must have a name of letters, digits, - and _. Choose another."),
        (["mixture.a=xnli", "mixture.a.sample=null"], "data.source=sample needs mixture.a.sample, which XNLI lacks."),
        (
            ["mixture.a=xnli", "mixture.a.languages=[de,fr]", "train.languages=[en,de]"],
            "train.languages must be languages of the mixture, got en. It has de, fr.",
        ),
    ],
)
def test_a_mixture_that_does_not_fit_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(["recipe=demo", *words])
    assert any(fault.startswith(message) for fault in caught.value.faults), caught.value.faults


def test_a_fault_of_a_file_in_a_mixture_names_the_file(own: Path) -> None:
    (own / "dataset/bad.yaml").write_text(yaml.safe_dump(OWN | {"labels": "yes"}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mixture\.a\.labels must be a list.*\(in .*dataset/bad\.yaml\)"):
        load_config(["recipe=demo", "mixture.a=bad"], config_dir=own)


def test_faults_of_all_sets_come_together() -> None:
    config = load_config(["recipe=demo", "mixture.a=sample_nli", "mixture.b=sample_nli"])
    config.mixture["a"].labels, config.mixture["b"].kind = ["x"], "other"
    assert [fault.split(" ")[0] for fault in faults_of(config)] == ["mixture.a", "mixture.b"]


# Data


def opened(*words: str, conf: Path | None = None) -> Session:
    return Session.open(load_config([*QUICK, *words], config_dir=conf), training=True)


def test_a_set_without_a_training_split_in_the_languages_is_refused(own: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        opened("mixture.a=reviews", "train.languages=[no]", conf=own)
    assert str(caught.value) == (
        "mixture.a must have a training split in one of train.languages (no), got en of reviews. "
        "Choose other languages, or leave it out."
    )
    with pytest.raises(ConfigError) as caught:
        opened("mixture.a=reviews", "train.languages=[en,no]", conf=own)
    assert str(caught.value) == "train.languages must have a training split in the mixture, got no. It has en."


def test_each_set_is_read_with_its_own_columns_languages_and_labels(own: Path) -> None:
    words = [*BOTH, "train.languages=[all]", "mixture.nli.languages=[sw,en]", f"data.cache={own / 'cache'}"]
    session = opened(*words, conf=own)
    corpus = session.corpus("train", session.train_languages)
    assert corpus.datasets == ["nli", "nli", "own", "own"] and corpus.languages == ["sw", "en", "en", "no"]
    assert [corpus.name(int(start)) for start in corpus.starts[:-1]] == ["nli/sw/0", "nli/en/0", "own/en/0", "own/no/0"]
    labels = [feature.columns["label"] for feature in corpus.features(list(range(16, 19)))[0]]
    assert sorted(labels) == [0, 1, 2]
    assert session.train_languages == ["sw", "en", "no"]
    again = opened(*words, conf=own)
    assert again.corpus("train", session.train_languages).fingerprint == corpus.fingerprint
    assert again.corpus("test", ["sw"]).datasets == []


def test_a_fault_in_a_set_begins_with_its_key(own: Path) -> None:
    words = ["data.source=auto", "data.root=.", "tokenizer.path=tok", "mixture.own=reviews", "train.languages=[no]"]
    Path("no.tsv").write_text(ROWS.replace("perhaps", "maybe"), encoding="utf-8")
    session = opened(*words, conf=own)
    with pytest.raises(DataError, match=r"^mixture\.own: no\.tsv:3: label must be one of .*, got 'maybe'\."):
        session.corpus("train", ["no"])
    Path("no.tsv").unlink()
    with pytest.raises(DataError, match=r"^mixture\.own: no\.tsv: expected a file, found none in \."):
        opened(*words, conf=own).corpus("train", ["no"])
    Path("no.tsv").write_text(ROWS, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^mixture\.own: dataset\.files\.train\.0\.part must be two shares"):
        opened(*words, "mixture.own.files.train.0.part=[0.5]", conf=own).corpus("train", ["no"])


# Runs


def trained(folder: Path, *words: str, conf: Path) -> Report | None:
    return train(load_config([*QUICK, f"run.dir={folder}", *words], config_dir=conf))


def test_a_run_on_a_mixture(own: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = trained(own.parent / "run", *BOTH, conf=own)
    assert report is not None
    assert report.protocol.training == {"sample NLI": ["en"], "reviews": ["en"]}
    assert report.protocol.stand_ins == ["reviews instead of pairs"]
    assert "data    sample NLI (sample) in en; reviews (files) in en: 11 examples," in capfd.readouterr().err
    page = (own.parent / "run/report.md").read_text(encoding="utf-8")
    assert "Trained on sample NLI in en; reviews in en" in page and "- reviews instead of pairs" in page
    stored = json.loads((own.parent / "run/report.json").read_text(encoding="utf-8"))
    assert stored["protocol"]["training"] == report.protocol.training
    assert trained(own.parent / "run", *BOTH, conf=own) is None  # finished, and recognised
    with pytest.raises(RunError) as caught:
        trained(own.parent / "run", *BOTH, "mixture.own.skip_labels=[x]", conf=own)
    assert "  mixture.own.skip_labels: [] there, ['x'] now" in str(caught.value)


def test_a_training_language_that_is_not_evaluated_cannot_select(own: Path) -> None:
    words = ["data.source=auto", "data.root=.", "tokenizer.path=tok", "mixture.own=reviews", "train.languages=[no]"]
    report = trained(own.parent / "run", *words, "evaluate.every=1", "evaluate.select=best", conf=own)
    assert report is not None
    assert (report.protocol.select_split, report.protocol.select_languages) == (None, [])
    words = ["dataset=reviews", "dataset.sample.test=[{path: x}]", "evaluate.languages=[en]", "evaluate.every=1"]
    with pytest.raises(ConfigError) as caught:
        opened(*words, "evaluate.select=best", "evaluate.select_languages=[en]", conf=own)
    assert str(caught.value) == (
        "evaluate.select_languages must have a validation split of reviews, got en. "
        "Choose others, or set evaluate.select=last."
    )
