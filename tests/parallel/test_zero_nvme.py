"""ZeRO-3 with moments and float32 weights on a disk makes the steps of one process, and its checkpoints go anywhere.

Sub-groups of less than 1 MB stay in memory, so the model here is larger than elsewhere: some of it lies on the disk.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import DIVIDED, STEPS, WORDS, assert_same, environment, launch, tensors

from tests.torchrun import torchrun

pytestmark = pytest.mark.slow
LARGER = ["model.vocab_size=8192", "model.hidden_size=128", "model.intermediate_size=512"]
SAVED = 3  # steps before the checkpoint
WAYS = (("nvme", "nvme", 2), ("nvme", "zero3", 3), ("nvme", "single", 1), ("zero3", "nvme", 2))


@pytest.fixture(scope="module", autouse=True)
def _aio() -> None:
    """Compile DeepSpeed's operation, which takes minutes on a machine's first run (root; installs libaio-dev)."""
    if os.geteuid() == 0 and shutil.which("apt-get") and not Path("/usr/include/libaio.h").exists():
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(["apt-get", "install", "-y", "-qq", "libaio-dev"], check=False)
    code = "from xlmrxl_train.parallel import World, zero_needs; zero_needs.require_aio(World())"
    variables = os.environ | {"DS_ACCELERATOR": "cpu", "PYTHONPATH": str(STEPS.parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nvme")


def jobs(strategy: list[str], disk: Path | None = None) -> dict[str, dict[str, Any]]:
    def words(name: str, *more: str) -> list[str]:  # each job has its own engine, and so a folder of its own
        where = [f"strategy.nvme_path={disk / name}"] if disk else []
        return [*WORDS, *LARGER, *strategy, *where, *more]

    cut = "train.tokens_per_micro_batch=256"
    return {
        "sgd": {"words": words("sgd"), "optimizer": "sgd", "look": True},
        "adamw": {"words": words("adamw"), "optimizer": "adamw", "look": True},
        "cut": {"words": words("cut", cut), "optimizer": "adamw", "freeze": True},
        "bf16": {"words": words("bf16", "train.precision=bf16"), "optimizer": "adamw", "steps": 20, "lr": 1e-3},
    }


@pytest.fixture(scope="module")
def single(folder: Path) -> dict[str, Any]:
    return launch(1, folder / "single", jobs(["strategy=single"]), folder / "cache")


NVME = ["strategy=zero3_nvme", *DIVIDED, "strategy.pin_memory=false"]


@pytest.mark.parametrize("more", [[], ["strategy.offload_parameters=true", "strategy.sub_group_mb=1.2"]])
def test_three_steps_are_those_of_one_process(folder: Path, single: dict[str, Any], tmp_path: Path, more) -> None:
    results = launch(2, tmp_path / "out", jobs([*NVME, *more], tmp_path / "disk"), folder / "cache")
    for job, result in results.items():
        assert not any(result["skipped"]) and not any(result["unchanged"]), job
        swapped = list((tmp_path / "disk" / job).rglob("*.swp"))  # left, since the workers end at once
        assert {file.parent.name for file in swapped} == {"rank0", "rank1"}, job
        assert any("exp_avg_sq" in file.name for file in swapped) == (job != "sgd"), job
        if job == "bf16":
            pairs = zip(result["losses"], single[job]["losses"], strict=True)
            assert max(abs(ours - expected) for ours, expected in pairs) < 0.02
            continue
        assert result["losses"] == pytest.approx(single[job]["losses"], rel=1e-5), job
        assert result["norms"] == pytest.approx(single[job]["norms"], rel=1e-5), job
        assert_same(tensors(folder / "single" / job), tensors(tmp_path / "out" / job), 1e-5)


def test_checkpoints_go_from_and_to_the_disk(folder: Path, tmp_path: Path) -> None:
    def job(name: str, **more: object) -> dict[str, Any]:
        places = {"single": ["strategy=single"], "zero3": ["strategy=zero3", *DIVIDED]}
        words = places.get(name) or [*NVME, f"strategy.nvme_path={tmp_path}/disk{len(more)}-{more.get('steps')}"]
        cut = "train.tokens_per_micro_batch=512"
        return {"words": [*WORDS, *LARGER, *words, cut], "optimizer": "adamw", "freeze": True, **more}

    for name in ("nvme", "zero3"):
        both = {"saved": job(name, steps=SAVED), "whole": job(name, steps=SAVED + 2)}
        launch(2, tmp_path / name, both, folder / "cache")
    for source, target, ranks in (
        ("nvme", "nvme", 2),
        ("nvme", "zero3", 3),
        ("nvme", "single", 1),
        ("zero3", "nvme", 2),
    ):
        out = tmp_path / f"{source} to {target}"
        load = [str(tmp_path / source / "saved"), SAVED]
        launch(ranks, out, {"more": job(target, steps=2, load=load)}, folder / "cache")
        saved, loaded = tensors(tmp_path / source / "saved"), tensors(out / "more-loaded")
        assert saved.keys() == loaded.keys()
        assert all(torch.equal(saved[name], loaded[name]) for name in saved), (source, target)
        bound = 0.0 if source == target else 1e-5
        assert_same(tensors(tmp_path / source / "whole"), tensors(out / "more"), bound)


def test_a_run_leaves_no_file_on_the_disk(folder: Path, tmp_path: Path) -> None:
    disk = [f"strategy.nvme_path={tmp_path / 'disk'}", f"run.dir={tmp_path / 'run'}", "train.max_steps=2"]
    program = STEPS.parents[2] / "xlmrxl_train" / "__main__.py"
    words = [*WORDS, *LARGER, *NVME, *disk, "evaluate.languages=[en]", "evaluate.bootstrap=0"]
    done = torchrun(program, *words, **environment(folder / "cache"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.json").is_file()
    assert [file.name for file in sorted((tmp_path / "disk").rglob("*")) if file.is_file()] == [
        "rank0.lock", "rank1.lock",
    ]  # fmt: skip
