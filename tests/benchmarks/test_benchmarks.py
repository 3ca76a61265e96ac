"""The benchmarks run, compare the same work, and say what they did. Nothing here looks at a clock."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu, inference, throughput
from benchmarks.measure import spread, table
from benchmarks.peer import grouped_positions
from benchmarks.workload import SHAPES, load_examples, our_batches, padded_batch, step_positions, synthetic, xnli

TINY = ["--shape", "tiny", "--vocab", "500", "--device", "cpu", "--batch-size", "8"]


def test_both_models_compute_the_same_loss(capsys: pytest.CaptureFixture[str]) -> None:
    assert throughput.main([*TINY, "--check"]) == 0
    assert capsys.readouterr().out.count("(transformers)") == 3


def test_the_table_has_every_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.json"
    assert throughput.main([*TINY, "--steps", "1", "--warm-up", "0", "--no-memory", "--json", str(target)]) == 0
    shown = capsys.readouterr().out
    assert all(f"| {name}" in shown for name in throughput.VARIANTS)
    values = json.loads(target.read_text())
    assert set(values["rows"]) == set(throughput.VARIANTS)
    assert values["matrix_peak"] > 0 and values["machine"]["torch"] == torch.__version__


def test_both_sides_get_the_same_tokens() -> None:
    examples, origin = load_examples(None, 500)
    assert origin.startswith("made-up")
    positions = step_positions(examples, 16, 3)
    packed, padded = our_batches(examples, positions, 200), padded_batch(examples, positions)
    assert len(packed) > 1
    num_tokens = sum(len(examples.ids[position]) for position in positions)
    assert sum(batch.num_tokens for batch in packed) == padded["attention_mask"].sum() == num_tokens
    assert sorted(torch.cat([batch.inputs["input_ids"] for batch in packed]).tolist()) == sorted(
        padded["input_ids"][padded["attention_mask"].bool()].tolist()
    )


def test_grouped_batches_hold_every_example_at_most_once() -> None:
    examples, _ = load_examples(None, 500)
    batches = grouped_positions(examples, 32)
    seen = [position for batch in batches for position in batch]
    assert len(seen) == len(set(seen)) > len(examples) - 32
    widths = [np.ptp([len(examples.ids[position]) for position in batch]) for batch in batches]
    assert np.median(widths) < 5


def test_made_up_lengths_are_those_of_xnli() -> None:
    lengths = synthetic(20_000, 500).lengths
    assert np.mean(lengths) == pytest.approx(42.2, abs=0.5)
    assert np.quantile(lengths, 0.95) == pytest.approx(65, abs=2)
    assert max(lengths) <= 96


def test_real_pairs(shared_data: Path) -> None:
    examples = xnli(shared_data, splits=("test",))
    assert len(examples) == 5010
    assert np.mean(examples.lengths) == pytest.approx(42.2, abs=0.05)
    folded = examples.folded(8000)
    assert max(max(ids) for ids in folded.ids) < 8000
    assert folded.ids[0][0] == 0 and folded.ids[0][-1] == 2


def test_flops_of_a_token() -> None:
    """facts.md: 17.1 GFLOP per token for the whole XL, attention at a length of 42 counted."""
    assert SHAPES["XL"].training_flops([42]) / 42 == pytest.approx(17.1e9, rel=0.01)


def test_without_a_gpu_the_cpu_part_runs_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--only", "attention", "--json", str(tmp_path / "gpu.json")]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == "no CUDA device found; ran the CPU part only"
    assert lines[-2] == "nothing failed"
    assert len(json.loads((tmp_path / "gpu.json").read_text())["rows"]) == 6


def test_rows_that_fail_or_come_too_late() -> None:
    runner = gpu.Runner(minutes=1)

    def fail() -> str:
        raise ValueError("wrong\nsecond line")

    runner.run("first", fail)
    runner.run("second", lambda: "fine")
    runner.ends = 0.0
    runner.run("third", lambda: "never")
    assert [result.passed for result in runner.results] == [False, True, None]
    assert [result.note for result in runner.results] == ["ValueError: wrong", "fine", "not run: the time was up"]


def test_the_script_for_a_gpu_machine_is_valid(repository: Path) -> None:
    subprocess.run(["sh", "-n", repository / "benchmarks" / "gpu.sh"], check=True)


def test_tables() -> None:
    assert table(["a", "bb"], [["1", "2"]]) == "| a | bb |\n| - | -- |\n| 1 | 2  |"
    assert spread([1.0]) == "-" and spread([9.0, 10.0, 10.0, 11.0]).startswith("-")


@pytest.mark.slow
def test_evaluation_agrees_with_transformers(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import evaluation

    options = ["--data", str(shared_data), "--languages", "en,sw", "--limit", "40"]
    assert evaluation.main([*options, "--shape", "tiny", "--device", "cpu", "--batch-sizes", "16"]) == 0
    assert "100.00% of 40 predictions in en are equal" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["fill-mask", "text-classification"])
def test_pipelines_are_compared_on_the_same_texts(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--task", task, "--shape", "tiny", "--device", "cpu", "--limit", "8", "--part", "4"]
    target = tmp_path / "out.json"
    assert inference.main([*options, "--batch-sizes", "2", "--json", str(target)]) == 0
    said = capsys.readouterr().out
    assert "in float32 4 of 4 answers are equal" in said and "times the peer's default" in said
    assert len(json.loads(target.read_text())["ratios"]["best"]) == 2
