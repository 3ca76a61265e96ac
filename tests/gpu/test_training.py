"""Whole runs on a GPU: every strategy with NCCL and one rank, and every way to make a step smaller or faster."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu import needs_gpu

pytestmark = needs_gpu
WORDS = [
    "recipe=demo", "model.path=null", "train.precision=bf16", "train.max_steps=40", "train.log_every=5",
    "evaluate.every=0", "evaluate.languages=[en]",
]  # fmt: skip
LAUNCHED = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]


def log_of(folder: Path, *words: str, launched: bool = False) -> list[dict]:
    """Run, and return the lines of training."""
    command = [sys.executable, *(LAUNCHED if launched else []), "-m", "xlmrxl_train", *WORDS, f"run.dir={folder}/run"]
    done = subprocess.run(
        [*command, f"data.cache={folder}/cache", *words], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "train"]


def losses(folder: Path, *words: str, launched: bool = False) -> list[float]:
    """Run on the GPU, and return the loss of every line."""
    trained = log_of(folder, *words, launched=launched)
    assert all(line["gpu_memory_gb"] > 0 and line["skipped"] == line["unchanged"] == 0 for line in trained)
    return [line["loss"] for line in trained]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return losses(tmp_path_factory.mktemp("single"), "strategy=single")


def test_one_process_learns_as_on_a_cpu(single: list[float], tmp_path: Path) -> None:
    assert single[-1] < single[0] - 0.02
    on_cpu = [line["loss"] for line in log_of(tmp_path, "strategy=single", "strategy.device=cpu")]
    assert single == pytest.approx(on_cpu, abs=0.03)  # bf16 on both, rounded in another order


@pytest.mark.parametrize(
    "words",
    [
        ["strategy=ddp"], ["strategy=fsdp2"], ["strategy=fsdp2", "strategy.offload=true"], ["strategy=zero1"],
        ["strategy=zero2"], ["strategy=zero3"], ["strategy=zero3_offload"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_strategies_make_the_same_steps(words: list[str], single: list[float], tmp_path: Path) -> None:
    assert losses(tmp_path, *words, launched=True) == pytest.approx(single, abs=0.03)


@pytest.mark.parametrize(
    "words",
    [
        ["train.compile=true"], ["train.recompute=full"], ["train.recompute=selective"], ["optimizer=adamw_8bit"],
        ["train.matmul=fp8"], ["model.attn_implementation=grouped"], ["model.attn_implementation=sdpa"],
        ["train.precision=fp32"], ["train.tokens_per_micro_batch=auto"], ["train.recompute=auto"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_ways_make_nearly_the_same_steps(words: list[str], single: list[float], tmp_path: Path) -> None:
    allowed = 0.1 if words[0] in ("train.matmul=fp8", "optimizer=adamw_8bit") else 0.03
    assert losses(tmp_path, "strategy=single", *words) == pytest.approx(single, abs=allowed)


@pytest.mark.parametrize("weights", ["null", "int8", "nf4"])
def test_adapters_learn(weights: str, tmp_path: Path) -> None:
    losses(tmp_path / "first", "strategy=single", "train.max_steps=5")
    words = [f"model.path={tmp_path}/first/run", "tuning=lora", f"tuning.weights={weights}", "optimizer.lr=3e-3"]
    found = losses(tmp_path / "second", "strategy=single", *words)
    assert found[-1] < found[0] - 0.02


def test_stopped_and_resumed_goes_on_as_before(single: list[float], tmp_path: Path) -> None:
    words = ["strategy=single", "train.checkpoint_every=10"]
    script = (
        "import sys; from xlmrxl_train.training.trainer import Trainer; step = Trainer._step\n"
        "def killed(self, number, *rest):\n"
        "    if number == 25: import os; self.checkpointer.wait(); os._exit(9)\n"
        "    return step(self, number, *rest)\n"
        "Trainer._step = killed\n"
        "from xlmrxl_train.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    places = [f"run.dir={tmp_path}/killed/run", f"data.cache={tmp_path}/killed/cache"]
    done = subprocess.run([sys.executable, "-c", script, *WORDS, *words, *places], capture_output=True, check=False)
    assert done.returncode == 9
    resumed = losses(tmp_path / "killed", *words)
    assert resumed == pytest.approx(single, abs=0.01)  # atomic additions on a GPU come in any order
