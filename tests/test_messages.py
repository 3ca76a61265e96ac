"""What a person's mistake leads to: one line that says what to do, exit code 2, no traceback, no run folder.

Faults that have a test beside their module are not repeated here.
"""

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from xlmrxl_train.cli import main
from xlmrxl_train.cli.compose import load_config
from xlmrxl_train.config import VARIANTS
from xlmrxl_train.errors import CheckpointError, RunError
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLForSequenceClassification
from xlmrxl_train.model.weights import SafetensorsReader, TorchReader, open_checkpoint
from xlmrxl_train.run import evaluate

Capture = pytest.CaptureFixture[str]
TINY = [
    "recipe=demo", "data.limit=30", "train.max_steps=1", "evaluate.bootstrap=0", "evaluate.languages=[en,de]",
    "run.dir=run",
]  # fmt: skip
LONG = "x" * 5000
SAMPLE = Path(__file__).parents[1] / "xlmrxl_train/data/sample"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(capsys: Capture, *words: str) -> str:
    """Run a command that must end with exit code 2 and leave no run folder; return what it says."""
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "Traceback" not in said
    assert max(map(len, said.splitlines())) < 1000
    assert not Path("run").exists() and not Path("runs").exists()
    return said


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.limit=10000000000000000000000", "data.limit must be at most 1,099,511,627,776"),
        ("seed=" + "9" * 5000, "cannot be read: Exceeds the limit"),
        (f"run.name={LONG}", "run.name must be a folder's name of 1 to 250 characters"),
        ("run.name=../../x", "run.name must be a folder's name"),
        ("run.dir=", "run.dir must be a folder, with names of at most 250 characters, got ''."),
        ("model.vocab_size=10", "tokenizer.path has 1,025 tokens, more than the model's 10 rows"),
        ("model.vocab_size=1000000000", "vocab_size must be at most 16777216, got 1000000000"),
        (f"model.path=/{LONG}", "model.path must be a path with names of at most 255 bytes"),
        ("model.path=./none", "model.path: file or folder not found: ./none (looked from"),
        ("model.hidden_size=200000", "parameters need 1,442.1 GB for weights, this"),
        ("tokenizer.path=~no-such-user/x", "whose home folder is not known. Write it out."),
        ("data.cache=~no-such-user/x", "data.cache must be a path, got ~no-such-user/x"),
        ("dataset.metrics=[perplexity]", "dataset.metrics must suit the task (accuracy, macro_f1), got perplexity"),
        (
            "dataset.columns={text: premise, label: label, text_par: hypothesis}",
            "dataset.columns has no role 'text_par'. Its roles are text, text_pair, label.",
        ),
        ("task.problem_type=regression", "dataset.labels must be empty for regression, got entailment"),
        (
            "task.problem_type=multi_label_classification",
            "dataset.metrics must suit the task (micro_f1, multilabel_",
        ),
        ("evaluate.submission=glue", "evaluate.submission must be xtreme or null, got 'glue'."),
        ("evaluate.submission=xtreme", "evaluate.submission=xtreme is for XTREME's data sets (BUCC 2018, MLQA, "),
        (
            "dataset.languages=[en,de,'q q']",
            "A language must be an ISO 639 code such as en, eng or eng_Latn, got 'q q'",
        ),
    ],
)
def test_a_wrong_value_is_named(word: str, message: str, capsys: Capture) -> None:
    languages = ["train.languages=[all]", "evaluate.languages=[]"] if "q q" in word else []
    assert message in refused(capsys, *TINY, word, *languages)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: !!int x", "recipe/r.yaml cannot be read as YAML: invalid literal"),
        ("seed: " + "1" * 5000, "cannot be read as YAML: Exceeds the limit"),
        ("seed: " + "[" * 3000, "cannot be read as YAML: maximum recursion depth exceeded"),
        ("5", "cannot be read as YAML: Invalid loaded object type: int"),
        ("- a", "must hold keys and values, not a list. Write key: value."),
        ("seed: &a\n  x: *a\n", "cannot be read as YAML"),
        ("a: &a [x]\nb: [" + ",".join(["*a"] * 50) + "]", "more than 20 aliases"),
        ("defaults: [/recipe/r, _self_]", "recipe=r cannot be composed: its defaults lead back to itself"),
        ("defaults: 5", "recipe=r cannot be composed: Invalid defaults list"),
        ("task: hello", "task must be a mapping of keys to values, got hello"),
        ("train: [1]", "the chosen files cannot be merged"),
        ("task: {kind: other}", f"task.kind must be {' | '.join(VARIANTS['task'])}, got 'other'."),
        ("dataset: {labels: 5}", "dataset.labels must be a list, e.g. dataset.labels=[a,b], got 5."),
    ],
)
def test_a_wrong_yaml_file_is_named(content: str, message: str, capsys: Capture) -> None:
    Path("conf/recipe").mkdir(parents=True)
    Path("conf/recipe/r.yaml").write_text(content)
    assert message in refused(capsys, "--config-dir", "conf", "recipe=r", "run.dir=run")


def test_what_is_no_file_is_no_recipe(capsys: Capture) -> None:
    Path("conf/recipe/folder.yaml").mkdir(parents=True)
    Path("conf/recipe/lost.yaml").symlink_to("nowhere")
    said = refused(capsys, "--config-dir", "conf", "recipe=demo", "run.dir=run")
    assert "folder.yaml must be a YAML file, got a folder or a device. Rename or remove it." in said
    assert "lost.yaml cannot be read as YAML: [Errno 2] No such file" in said


@pytest.mark.parametrize("content", ["a: [", "task: 5", "- a", "seed: " + "[" * 3000])
def test_a_damaged_configuration_of_a_run_is_named(content: str, capsys: Capture) -> None:
    Path("old").mkdir()
    Path("old/config.yaml").write_text(content)
    said = refused(capsys, "evaluate", "old")
    assert "config.yaml" in said or "task must be a mapping" in said


def test_a_choice_that_does_not_compose_is_named_when_a_run_is_evaluated(capsys: Capture) -> None:
    Path("old").mkdir()
    Path("old/config.yaml").write_text("seed: 1\n")
    Path("conf/task").mkdir(parents=True)
    Path("conf/task/odd.yaml").write_text("defaults: 5")
    said = refused(capsys, "evaluate", "old", "--config-dir", "conf", "task=odd")
    assert "task=odd cannot be composed: Invalid defaults list" in said


@pytest.mark.parametrize(
    ("row", "problem", "message"),
    [
        ({"text": "x", "label": "1" * 5000}, "", "label must be one of a, b or a number below 2"),
        ({"text": "x", "label": "z" * 100_000}, "", "... (100,002 characters)"),
        ({"text": [1] * 10_000, "label": "a"}, "", "column 'text' must hold text, got [1, 1"),
    ],
)
def test_a_wrong_row_is_named(row: dict[str, object], problem: str, message: str, capsys: Capture) -> None:
    sets = "[{path: d.jsonl}]"
    Path("conf/dataset").mkdir(parents=True)
    Path("conf/dataset/d.yaml").write_text(
        "name: d\nkind: sequence_classification\nlanguages: [en]\ncolumns: {text: text, label: label}\nlabels: [a, b]\n"
        f"files: {{train: {sets}, validation: {sets}, test: {sets}}}\n"
    )
    Path("d.jsonl").write_text(json.dumps(row) + "\n")
    words = ["dataset=d", "data.source=files", "data.root=.", "evaluate.languages=[]", "tokenizer.path=tok"]
    shutil.copytree(SAMPLE, "tok")
    said = refused(capsys, "--config-dir", "conf", *TINY, *words)
    assert "d.jsonl:1: " in said and message in said


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.conll", "a\tO\n\nb\tO\nRiga\tB-CITY\n", "t.conll:4: the tag of 'Riga' must be one of O, B-LOC, I-LOC or a"),
        ("t.conll", "a\tO\nb\n", "t.conll:2: expected 2 columns, found 1. Mend the line, or set the separator"),
        ("t.conllu", "# text = a\n1\ta\t_\tO\n", "t.conllu:2: expected the 10 columns of CoNLL-U, found 4. Mend the"),
        ("t.conllu", "# text = a\n1\ta\t_\t_" + "\t_" * 6 + "\n", "t.conllu:2: the tag of 'a' must be one of O, B-LOC"),
        ("t.jsonl", '{"tokens": ["a"]}\n', "t.jsonl:1: expected a column 'tags', found 'tokens'. Set dataset.columns"),
    ],
)
def test_a_wrong_tag_is_named_before_training(name: str, content: str, message: str, capsys: Capture) -> None:
    Path("conf/dataset").mkdir(parents=True)
    sets = f"[{{path: {name}}}]"
    Path("conf/dataset/d.yaml").write_text(
        "name: d\nkind: token_classification\nlanguages: [en]\ncolumns: {tokens: tokens, tags: tags}\n"
        f"labels: [O, B-LOC, I-LOC]\nfiles: {{train: {sets}, validation: {sets}, test: {sets}}}\n"
    )
    Path(name).write_text(content)
    shutil.copytree(SAMPLE, "tok")
    words = ["recipe=panx", "model=tiny", "dataset=d", "data.root=.", "tokenizer.path=tok", "run.dir=run"]
    said = refused(capsys, "--config-dir", "conf", *words)
    assert message in said and len(said.splitlines()) == 1


# Folders of models


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the sample's size, with its tokenizer."""
    folder = tmp_path_factory.mktemp("good")
    config = XLMRobertaXLConfig(
        vocab_size=1025, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    XLMRobertaXLForSequenceClassification(config).save_pretrained(folder)
    shutil.copy(SAMPLE / "tokenizer.json.gz", folder)
    return folder


def settings(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (text("config.json", "[" * 100_000), "config.json must be JSON, got maximum recursion depth exceeded"),
        (text("config.json", '{"a": ' + "1" * 5000 + "}"), "config.json must be JSON, got Exceeds the limit"),
        (settings(vocab_size="x"), "m/config.json: vocab_size must be an integer of at least 1, got 'x'"),
        (settings(num_hidden_layers=10**9), "num_hidden_layers must be at most 1000, got 1000000000. Check"),
        (settings(hidden_size=10**15), "hidden_size must be at most 16777216"),
        (settings(pad_token_id=None), "pad_token_id must be an integer, got None"),
        (settings(is_decoder="false"), "m/config.json: is_decoder must be true or false, got 'false'. Take the Hub's"),
        (settings(layer_norm_eps="x"), "layer_norm_eps must be a number in [0, 1), got 'x'"),
        (settings(model_type="bert"), 'model_type must be "xlm-roberta-xl", got "bert"'),
        (text("model.safetensors", "short"), "model.safetensors must be safetensors, got a damaged or different file"),
        (lambda folder: (folder / "config.json").unlink(), "model.path must be a folder with config.json and weights"),
    ],
)
def test_a_wrong_model_is_named(
    change: Callable[[Path], None], message: str, good: Path, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copytree(good, tmp_path / "m")
    change(tmp_path / "m")
    assert message in refused(capsys, *TINY, "model.path=./m")


@pytest.mark.parametrize(
    "values",
    [
        {"id2label": ["a"]},
        {"id2label": {"x": "y"}},
        {"id2label": {0: "a", 2: "b"}},
        {"label2id": 5},
        {"class_weights": 5},
    ],
)
def test_a_config_of_wrong_types_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(values))} must "):
        XLMRobertaXLConfig.from_dict(values)


@pytest.mark.parametrize("names", [{"a": "../x.safetensors"}, {"a": "/etc/passwd"}, {"a": 5}, {"a": "x" * 5000}, [1]])
def test_an_index_names_files_of_its_folder_only(names: object, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(CheckpointError, match=r"index\.json must be an index of shards, got a damaged or different"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content", [{1: torch.zeros(2)}, {"a": torch.zeros(2, device="meta")}, {"a": torch.eye(2).to_sparse()}, [1]]
)
def test_a_torch_file_holds_named_plain_tensors(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.bin")
    with pytest.raises(CheckpointError, match=r"w\.bin must hold a dictionary of tensors\. Save model\.state_dict"):
        TorchReader([tmp_path / "w.bin"])


def test_numbers_of_a_type_that_torch_lacks_are_refused(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(3))
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors must be safetensors, got a damaged or different file"
    ):
        SafetensorsReader([file]).read("a")


def test_the_check_before_a_run_takes_no_memory_and_says_nothing(good: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = XLMRobertaXLForSequenceClassification.from_pretrained(good, device="meta", num_labels=3)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert not caplog.records and len(load_file(good / "model.safetensors")) == len(list(model.parameters()))


# Tokenizers


@pytest.mark.parametrize(("extra", "count"), [({}, 5), ({"the": 999_999}, 6)])
def test_a_vocabulary_without_gaps_is_wanted(extra: dict[str, int], count: int, capsys: Capture) -> None:
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4} | extra
    rules = json.loads(gzip.decompress((SAMPLE / "tokenizer.json.gz").read_bytes()))
    rules |= {"model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}, "added_tokens": []}
    Path("t.json").write_text(json.dumps(rules))
    said = refused(capsys, *TINY, "tokenizer.path=./t.json")
    assert "tokenizer.path must have at least 6 tokens and number them without gaps" in said and f"got {count} " in said


def test_a_tokenizer_that_cannot_encode_is_named(capsys: Capture) -> None:
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}
    rules = json.loads(gzip.decompress((SAMPLE / "tokenizer.json.gz").read_bytes()))
    rules |= {"model": {"type": "WordLevel", "vocab": words, "unk_token": "none"}, "added_tokens": []}
    Path("t.json").write_text(json.dumps(rules))
    said = refused(capsys, *TINY, "tokenizer.path=./t.json")
    assert "tokenizer.path must be a tokenizer that can encode a text, got t.json (" in said
    assert said.endswith("). Use an XLM-R tokenizer.\n")


def test_saved_shapes_are_compared_before_a_run(good: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(good, tmp_path / "m")
    tensors = load_file(tmp_path / "m/model.safetensors")
    config = json.loads((tmp_path / "m/config.json").read_text(encoding="utf-8"))
    config["id2label"] = dict(enumerate(["entailment", "neutral", "contradiction"]))  # so that the head is read
    (tmp_path / "m/config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors["classifier.dense.bias"] = torch.zeros(3)
    save_file(tensors, tmp_path / "m/model.safetensors")
    assert "shape: classifier.dense.bias must be (16,), got (3,)" in refused(capsys, *TINY, "model.path=./m")


def test_the_words_above_are_otherwise_right() -> None:
    load_config(TINY)


@pytest.mark.parametrize("charsmap", ["AAAA", "////"])
def test_a_damaged_charsmap_is_named(charsmap: str, capsys: Capture) -> None:
    rules = json.loads(gzip.decompress((SAMPLE / "tokenizer.json.gz").read_bytes()))
    Path("t.json").write_text(
        json.dumps(rules | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap}})
    )
    said = refused(capsys, *TINY, "tokenizer.path=./t.json")
    assert "tokenizer.path must be a tokenizer.json of the tokenizers library, got t.json" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset.skip_labels=[entailment,neutral,contradiction]"], "train split of en: expected examples, got none."),
        (["model.max_position_embeddings=64", "task.max_length=63"], "task.max_length must be at most model.max_pos"),
        (
            ["strategy=zero3_nvme"],
            "strategy.nvme_path must be a folder on a local disk, got null. Give strategy",
        ),
        (["strategy=zero3_nvme", "strategy.nvme_path=x"], "strategy.nvme_path must be an absolute path, got 'x'."),
        (
            ["strategy=zero3", "strategy.hierarchical_size=2", "strategy.device=cpu"],
            "strategy.hierarchical_size must divide the number of ranks, 1, got 2. Use the number of GPUs of a machine",
        ),
        (
            ["strategy=zero3", "strategy.quantized_gradients=true", "strategy.device=cpu"],
            "strategy.quantized_gradients must be false on cpu, got true: DeepSpeed quantizes in CUDA alone. Leave it",
        ),
        (["-m", "seed=1,2", "--cfg", "job"], "--cfg shows one configuration, -m makes many. Leave one of them out."),
    ],
)
def test_words_that_do_not_fit_together(words: list[str], message: str, capsys: Capture) -> None:
    assert message in refused(capsys, *TINY, *words)


def test_positions_of_a_checkpoint_bound_the_length(good: Path, capsys: Capture) -> None:
    words = [f"model.path={good}", "task.max_length=600", "model.max_position_embeddings=null"]
    assert "task.max_length must be at most 512, the model's positions, got 600." in refused(capsys, *TINY, *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys: Capture) -> None:
    said = refused(capsys, *TINY, "strategy.device=cuda")
    assert said == "error: strategy.device=cuda needs a GPU, found none. Use strategy.device=cpu or auto.\n"


def test_a_folder_without_a_model_is_not_evaluated() -> None:
    with pytest.raises(RunError, match=r"must be a run folder with config\.yaml, found none\. Give the folder of"):
        evaluate(Path("nothing"))
    Path("started").mkdir()
    Path("started/config.yaml").write_text("seed: 1\n")
    with pytest.raises(RunError, match=r"started/model must hold the trained model, found none\. Let the run finish"):
        evaluate(Path("started"))
