"""`xlmrxl plan`, from words to what is printed, and `auto` in a real run."""

import json
from pathlib import Path

import pytest
import yaml

from xlmrxl_train.cli import main
from xlmrxl_train.cli.plan import bar, duration

Capture = pytest.CaptureFixture[str]
XL = ["plan", "recipe=xnli", "plan.hardware=8xA100-80GB"]
DEMO = ["recipe=demo", "model.path=null", "data.limit=60", "run.dir=run"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_json(capsys: Capture) -> None:
    """Neither weights nor data nor GPU is here: the configured shape and XNLI's lengths stand in."""
    assert main([*XL, "strategy=zero3", "plan.nodes=4", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert set(plan) == set(
        """hardware ranks strategy precision recompute parameters trained tokens_per_micro_batch tokens micro_batches
        lengths words weights gradients optimizer activations buffers loading training training_at_budget usable fits
        host host_saving host_memory disk largest_budget sent flops efficiency efficiency_origin tokens_per_second
        seconds_per_step seconds_sending steps seconds checkpoint model remedy""".split()
    )
    assert plan["ranks"] == 32 and plan["strategy"] == "zero3" and plan["fits"] is True and plan["remedy"] is None
    frozen = 250_880 - int(0.15 * 250_880)  # rows taken to be missing in the training set, in float32 as new ones are
    assert plan["parameters"] == 3_482_493_443 == plan["trained"] + frozen * 2560
    assert plan["words"].startswith("15% of 250,880 rows taken to be in the training set")
    assert plan["lengths"] == "real XNLI pairs, mean 42 tokens"
    assert plan["steps"] == 3 * -(-392_702 // 128)
    assert plan["optimizer"] == pytest.approx(12 * plan["trained"] / 32, rel=0.01)
    assert plan["checkpoint"] == 12 * plan["trained"] + 4 * 2560 * frozen
    assert plan["model"] == 4 * plan["parameters"]
    assert plan["flops"] == pytest.approx(16.7e9, rel=0.01)  # 17.1, less what the last layer leaves out


def test_a_table_and_what_would_fit(capsys: Capture) -> None:
    assert main(["plan", "recipe=xnli", "plan.hardware=4xRTX4090"]) == 1
    said = capsys.readouterr().out
    assert "strategy=ddp on 4 x RTX4090-24GB" in said and "█" in said
    assert "no; it would with strategy=fsdp2 " in said
    for word in ("weights", "gradients", "optimizer", "activations", "loading", "sends", "speed", "time", "checkpoint"):
        assert word in said, word


def test_what_it_cannot_plan(capsys: Capture) -> None:
    for words, message in {
        ("recipe=tatoeba",): "task=retrieval trains nothing, so there is nothing to plan. Choose another recipe.",
        ("recipe=xnli", "strategy=single", "plan.hardware=2xH200"): (
            "strategy=single runs in one process, plan.hardware has 2. Use strategy=ddp."
        ),
        ("recipe=xnli", "model.path=no/where", "model.hidden_size=null"): (
            "model.path=no/where must be on this machine, or its shape be given, to plan for it. Fetch it first, or"
        ),
        ("recipe=xnli", "-m"): "plan takes no -m. Plan one run at a time.",
        ("recipe=xnli", "plan.nodes=0"): "plan.nodes must be greater than 0, got 0.",
        ("recipe=xnli", "plan.efficiency=2"): "plan.efficiency must be above 0 and at most 1, got 2.0.",
        ("recipe=xnli", "train.tokens_per_micro_batch=many"): (
            "train.tokens_per_micro_batch must be a whole number or auto, got many."
        ),
        ("recipe=xnli", "train.recompute=some"): (
            "train.recompute must be none | full | selective | every_<n> with n from 2 | auto, got 'some'."
        ),
    }.items():
        assert main(["plan", *words]) == 2
        assert message in capsys.readouterr().err


def test_auto_becomes_numbers_that_the_run_keeps(capsys: Capture) -> None:
    words = [*DEMO, "train.max_steps=1", "evaluate.every=0", "evaluate.test=false"]
    auto = ["train.tokens_per_micro_batch=auto", "train.recompute=auto"]
    assert main([*words, *auto]) == 0
    said = capsys.readouterr().err
    kept = yaml.safe_load(Path("run/config.yaml").read_text(encoding="utf-8"))["train"]
    tokens = kept["tokens_per_micro_batch"]
    assert isinstance(tokens, int) and 128 <= tokens <= 8192 and kept["recompute"] == "none"
    assert f"auto    train.tokens_per_micro_batch={tokens} train.recompute=none" in said
    surroundings = json.loads(Path("run/environment.json").read_text(encoding="utf-8"))
    assert surroundings["tokens_per_micro_batch"] == tokens and surroundings["recompute"] == "none"

    assert main(["plan", *DEMO, "--json", "plan.hardware=cpu"]) == 0  # the data is tokenised, and a run was here
    plan = json.loads(capsys.readouterr().out)
    assert plan["lengths"] == "the training set, 60 examples" and plan["steps"] == 15 * 2


def test_the_last_run_says_how_fast_it_is(capsys: Capture) -> None:
    words = [*DEMO[:-1], "train.max_steps=3", "train.log_every=1", "evaluate.every=0", "evaluate.test=false"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(["plan", *words, "--json", "plan.hardware=cpu"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["efficiency_origin"] == "as runs/demo/seed-1 reached" and 0 < plan["efficiency"] <= 1
    assert main(["plan", *words, "model=mini", "--json", "plan.hardware=cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["efficiency_origin"] == "assumed"  # another width


def test_bars_and_durations() -> None:
    assert bar(0, 10) == "" and len(bar(5, 10)) == 20 and bar(10, 10) == "█" * 40 and bar(11, 10).endswith("▶")
    assert [duration(s) for s in (5, 90, 5000)] == ["5 s", "2 min", "1 h 23 min"]


@pytest.mark.parametrize(("weights", "least", "most"), [("null", 2.0, 2.2), ("int8", 1.0, 1.25), ("nf4", 0.5, 0.8)])
def test_adapters_over_rounded_matrices(weights: str, least: float, most: float, capsys: Capture) -> None:
    pytest.importorskip("peft")
    pytest.importorskip("torchao")
    words = ["recipe=xnli", "tuning=lora", f"tuning.weights={weights}", "model.vocab_size=5000"]
    assert main(["plan", *words, "train.recompute=full", "plan.hardware=H200", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["trained"] < 0.02 * plan["parameters"]
    assert least < plan["weights"] / plan["parameters"] < most
