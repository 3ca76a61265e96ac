"""Adapters on the packed encoder: they begin as nothing, learn, come back after a stop, and are read by peft."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.parallel.worker import trainer_of
from xlmrxl_train import evaluate, load_config, pipeline, train
from xlmrxl_train.config import LoraTuningConfig
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import CheckpointError, ConfigError, RunError
from xlmrxl_train.inference.export.adapter_folder import copy_adapter
from xlmrxl_train.inference.export.exporting import export
from xlmrxl_train.inference.model_folder import open_model_folder
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLForMaskedLM, XLMRobertaXLForSequenceClassification
from xlmrxl_train.model.rounded_linear import RoundedLinear
from xlmrxl_train.model.weights import open_checkpoint
from xlmrxl_train.session import SAMPLE_TOKENIZER, Session
from xlmrxl_train.training.adapters import write_adapter

WORDS = ["recipe=demo", "data.limit=48", "train.batch_size=16", "evaluate.bootstrap=0", "evaluate.languages=[en,de]",
         "strategy.device=cpu", "optimizer.lr=1e-2", "evaluate.every=0"]  # fmt: skip
FROZEN = ["tuning=head"]  # the same weights, held in the same dtype
BF16 = ["train.precision=bf16"]
KINDS = {
    "lora": ["tuning=lora", "tuning.rank=4"],
    "dora": ["tuning=dora", "tuning.targets=[query,value,output]"],
    "rslora": ["tuning=rslora"],
    "int8": ["tuning=lora", "tuning.weights=int8", *BF16],
    "nf4": ["tuning=lora", "tuning.weights=nf4", *BF16],
    "dora over nf4": ["tuning=dora", "tuning.weights=nf4", *BF16],
}
CONFIG = XLMRobertaXLConfig(
    vocab_size=1025, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
    max_position_embeddings=66, initializer_range=0.1,
)  # fmt: skip
INPUTS = {"input_ids": torch.tensor([[0, 9, 8, 7, 6, 2], [0, 5, 4, 2, 1, 1]]),
          "attention_mask": torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model with weights large enough to matter, as the Hub has XLM-R XL."""
    folder = tmp_path_factory.mktemp("adapters") / "base"
    tokenizer = Tokenizer.from_path(SAMPLE_TOKENIZER)
    torch.manual_seed(0)
    model = XLMRobertaXLForMaskedLM(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())  # frozen weights are held so, and nothing is lost
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def words_of(base: Path, kind: str, *more: str) -> list[str]:
    return [*WORDS, "task.max_length=64", f"model.path={base}", *KINDS[kind], *more]


@pytest.fixture(scope="module")
def run_of(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A finished run of six steps of each kind, made once."""
    folder, made = tmp_path_factory.mktemp("runs"), set()

    def run(kind: str) -> Path:
        path = folder / kind.replace(" ", "-")
        if kind not in made:
            assert train(load_config(words_of(base, kind, "train.max_steps=6", f"run.dir={path}"))) is not None
            made.add(kind)
        return path

    return run


def predicted(base: Path, *words: str) -> Tensor:
    session = Session.open(load_config([*WORDS, "task.max_length=64", f"model.path={base}", *words]), training=True)
    return session.strategy().predict(INPUTS).logits.float()


@pytest.mark.parametrize(("kind", "precision"), [("lora", []), ("lora", BF16), ("dora", []), ("dora", BF16)])
def test_they_begin_as_nothing(kind: str, precision: list[str], base: Path) -> None:
    before, after = (predicted(base, *words, *precision) for words in (FROZEN, KINDS[kind]))
    if kind == "dora":  # divides by a length that it computes again
        torch.testing.assert_close(after, before, rtol=0, atol=2e-2 if precision else 1e-5)
    else:
        assert torch.equal(after, before)


@pytest.mark.parametrize(("kind", "bound"), [("int8", 0.1), ("dora over nf4", 0.3)])
def test_rounded_weights_are_near_the_ones_that_they_stand_for(kind: str, bound: float, base: Path) -> None:
    before, after = predicted(base, *FROZEN, *BF16), predicted(base, *KINDS[kind])
    assert 0 < float((after - before).norm()) < bound * float(before.norm())


@pytest.mark.parametrize("kind", ["lora", "int8", "dora over nf4"])
def test_they_learn_and_nothing_else_moves(kind: str, base: Path, tmp_path: Path) -> None:
    config = load_config(words_of(base, kind, "optimizer.lr=5e-3", f"run.dir={tmp_path}"))
    trainer = trainer_of(Session.open(config, training=True), config)
    before = {name: parameter.detach().clone() for name, parameter in trainer.strategy.model.named_parameters()}
    batches, losses = trainer.batches.of_step(0), []
    for number in range(12):
        step = trainer._step(number, batches, 5e-3)
        losses.append(step.loss_sum / step.num_targets)
    assert losses[-1] < losses[0] - 0.1
    changed = {n for n, parameter in trainer.strategy.model.named_parameters() if not torch.equal(parameter, before[n])}
    assert changed == trainer.strategy.trainable
    assert all(".lora_" in name or name.startswith("classifier.") for name in changed)
    assert all(before[name].dtype == torch.float32 for name in changed)


@pytest.mark.parametrize("kind", ["lora", "dora over nf4"])
def test_they_go_on_from_a_checkpoint_to_the_bit(kind: str, base: Path, tmp_path: Path) -> None:
    words = words_of(base, kind, "train.checkpoint_every=2", "train.keep_checkpoints=9")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(load_config([*words, "train.max_steps=5", f"run.dir={whole}"]))
    shutil.copytree(whole, cut)
    for name in ("report.json", "report.md"):
        (cut / name).unlink()
    for step in (4, 5):
        shutil.rmtree(cut / f"checkpoints/step-{step:08d}")
    shutil.rmtree(cut / "adapter")
    held = json.loads((cut / "checkpoints/step-00000002/tensors/index.json").read_text())
    assert held and all("lora_" in name or "classifier" in name for name in held)  # nothing of what lies below
    train(load_config([*words, "train.max_steps=5", f"run.dir={cut}"]))
    for file in ("adapter/adapter_model.safetensors", "report.json"):
        assert (cut / file).read_bytes() == (whole / file).read_bytes()


def test_they_do_not_go_on_over_other_weights(base: Path, tmp_path: Path) -> None:
    moved = tmp_path / "base"
    shutil.copytree(base, moved)
    words = words_of(moved, "lora", "train.max_steps=2", f"run.dir={tmp_path}/run")
    train(load_config(words))
    (tmp_path / "run/report.json").unlink()
    file = moved / "model.safetensors"
    values = bytearray(file.read_bytes())
    values[-8:] = b"12345678"
    file.write_bytes(values)
    with pytest.raises(RunError, match=rf"was started with another model in model\.path={moved}: fingerprint .* there"):
        train(load_config(words))


def live(run: Path) -> Tensor:
    """Return what the model of a run predicts while it is still in training's form."""
    from xlmrxl_train.training.checkpoint import load
    from xlmrxl_train.training.folder import RunFolder

    session = Session.open(RunFolder(run).read_config(), training=True)
    strategy = session.strategy()
    load(run / "checkpoints/step-00000006", strategy)
    return strategy.predict(INPUTS).logits.float()


@pytest.mark.parametrize("kind", KINDS)
def test_merged_and_apart_they_predict_the_same(kind: str, run_of: Callable[..., Path]) -> None:
    run, bound = run_of(kind), 1e-5 if kind in ("lora", "dora", "rslora") else 3e-2  # products in bf16
    expected = live(run)
    for folder in ("model", "adapter"):
        model = XLMRobertaXLForSequenceClassification.from_pretrained(run / folder)
        assert model.config.id2label[0] == "entailment" and not model.load_report.new
        torch.testing.assert_close(model(**INPUTS).logits, expected, rtol=0, atol=bound * float(expected.abs().max()))
    merged = load_file(run / "model/model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.float32}
    assert not [name for name in merged if "lora" in name or "base_layer" in name]


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora"])
def test_peft_reads_them(kind: str, run_of: Callable[..., Path], base: Path) -> None:
    run = run_of(kind)
    theirs = transformers.XLMRobertaXLForSequenceClassification.from_pretrained(base, num_labels=3)
    adapted = PeftModel.from_pretrained(theirs, run / "adapter").eval()
    expected = live(run)
    torch.testing.assert_close(adapted(**INPUTS).logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(adapted.merge_and_unload()(**INPUTS).logits, expected, rtol=1e-4, atol=1e-5)


def test_those_that_peft_wrote_are_read(run_of: Callable[..., Path], base: Path, tmp_path: Path) -> None:
    theirs = transformers.XLMRobertaXLForSequenceClassification.from_pretrained(base, num_labels=3)
    adapted = PeftModel.from_pretrained(theirs, run_of("dora") / "adapter").eval()
    adapted.save_pretrained(tmp_path)
    theirs.config.save_pretrained(tmp_path)
    ours = XLMRobertaXLForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(ours(**INPUTS).logits, adapted(**INPUTS).logits, rtol=1e-4, atol=1e-5)


def test_without_merging_every_command_reads_the_adapter(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    report = train(load_config(words_of(base, "lora", "train.max_steps=6", "tuning.merge=false", f"run.dir={run}")))
    assert report is not None and not (run / "model").exists()
    assert report.protocol.setting(["de"]) == "zero-shot from en; lora of rank 4"
    sizes = [path.stat().st_size for path in (run / "adapter").glob("*.safetensors")]
    assert sizes == [min(sizes)] and sizes[0] < 0.2 * (base / "model.safetensors").stat().st_size
    again = evaluate(run)
    assert again.averages() == report.averages()
    [found] = pipeline("text-classification", str(run), device=-1)([{"text": "It rains.", "text_pair": "It is wet."}])
    assert found["label"] in ("entailment", "neutral", "contradiction")
    assert list(export(str(run), to="transformers", output=tmp_path / "whole"))
    theirs = transformers.XLMRobertaXLForSequenceClassification.from_pretrained(tmp_path / "whole").eval()
    torch.testing.assert_close(theirs(**INPUTS).logits, live(run), rtol=1e-4, atol=1e-5)
    assert list(export(str(run), to="adapter", output=tmp_path / "small"))
    assert "library_name: peft" in (tmp_path / "small/README.md").read_text(encoding="utf-8")
    ours = XLMRobertaXLForSequenceClassification.from_pretrained(tmp_path / "small")
    torch.testing.assert_close(ours(**INPUTS).logits, live(run), rtol=1e-4, atol=1e-5)


def test_a_run_goes_on_from_an_adapter(run_of: Callable[..., Path], base: Path, tmp_path: Path) -> None:
    first = run_of("lora")
    words = words_of(first / "adapter", "lora", "train.max_steps=1", f"run.dir={tmp_path / 'second'}")
    report = train(load_config(words))
    assert report is not None and len(report.protocol.parents) == 1
    second = open_checkpoint(tmp_path / "second/adapter")
    assert second.shapes.keys() == open_checkpoint(first / "adapter").shapes.keys()


# Faults


def edit(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def change(folder: Path, changed: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    changed(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


ONE = torch.ones(1)
FIRST = "base_model.model.roberta.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: edit(folder, peft_type="LOHA"), "must be of LoRA, DoRA or rsLoRA in their plain form, got p"),
        (lambda folder: edit(folder, lora_bias=True), "plain form, got peft_type LORA with lora_bias=True. Merge it"),
        (lambda folder: edit(folder, init_lora_weights="pissa"), "peft_type LORA with init_lora_weights='pissa'. Me"),
        (lambda folder: edit(folder, base_model_name_or_path=None), "must name its base in base_model_name_or_path,"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "must be the configuration of an adapter"),
        (
            lambda folder: change(folder, lambda tensors: tensors.pop(f"{FIRST}.lora_B.weight")),
            "but roberta.encoder.layer.0.attention.self.query.weight has lora_A.weight. Give the base",
        ),
        (
            lambda folder: change(folder, lambda tensors: tensors.update({f"{FIRST}.lora_B.weight": torch.ones(3, 4)})),
            "query.lora_B.weight of shape (64, 4), got (3, 4). Give the base that it was trained on.",
        ),
        (
            lambda folder: change(folder, lambda tensors: tensors.update({"base_model.model.x.lora_A.weight": ONE})),
            "but x.weight is not there. Give the base",
        ),
    ],
)  # fmt: skip
def test_a_damaged_adapter_is_named(
    damage: Callable[[Path], object], message: str, run_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(run_of("lora") / "adapter", tmp_path / "adapter"))
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert message in str(caught.value) and str(folder) in str(caught.value)


def test_an_adapter_without_labels_is_named(run_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run_of("lora") / "adapter", tmp_path / "adapter"))
    (folder / "config.json").unlink()
    with pytest.raises(
        ConfigError, match=r"no config\.json beside the adapter: copy its base's there and write its labels"
    ):
        pipeline("text-classification", str(folder), device=-1)


def test_a_base_that_is_gone_is_named(run_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run_of("lora") / "adapter", tmp_path / "adapter"))
    edit(folder, base_model_name_or_path="/no/such/folder")
    with pytest.raises(ConfigError, match=r"^base_model_name_or_path of .*adapter_config\.json: folder not found: /no"):
        open_checkpoint(folder)


def test_matrices_that_nf4_does_not_divide_are_named() -> None:
    wanted = (
        r"^tuning\.weights=nf4 needs matrices of a multiple of 64 elements, got 3 x 5\. Choose int8, or another sha"
    )
    with pytest.raises(ConfigError, match=wanted):
        RoundedLinear(torch.nn.Linear(5, 3), "nf4")


def test_what_has_no_adapter_cannot_give_it(base: Path, tmp_path: Path) -> None:
    wanted = (
        r"^--to adapter must have a run with tuning=lora, dora or rslora, or the folder of an adapter, got .*base\. U"
    )
    with pytest.raises(ConfigError, match=wanted):
        list(export(str(base), to="adapter", output=tmp_path / "out"))


def test_a_place_that_cannot_be_written_is_named(run_of: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        CheckpointError, match=r"adapter cannot be copied to .*file/out: Not a directory\. Check the paths"
    ):
        copy_adapter(open_model_folder(str(run_of("lora") / "adapter")), tmp_path / "file/out")
    with pytest.raises(
        CheckpointError, match=r"file/out cannot be written: Not a directory\. Check the path and the fr"
    ):
        write_adapter(tmp_path / "file/out", XLMRobertaXLForMaskedLM(CONFIG), [], LoraTuningConfig(), base="x",
                      revision=None)  # fmt: skip


def test_the_card_loads_the_adapter(run_of: Callable[..., Path], tmp_path: Path) -> None:
    """Every line of the card's Python, as a reader would run it."""
    list(export(str(run_of("lora")), to="adapter", output=tmp_path / "out"))
    text = (tmp_path / "out/README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    words: dict[str, Any] = {}
    exec(text.replace('folder = "."', f"folder = {str(tmp_path / 'out')!r}"), words)
    assert isinstance(words["model"], PeftModel) and words["outputs"].logits.shape == (1, 3)
