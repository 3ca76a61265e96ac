"""The scaling table: formulas, and bytes that are counted where they leave the process."""

import json
import socket
import threading
from pathlib import Path

import pytest
import torch

from benchmarks import scaling
from benchmarks.ranks import Phases, anonymous_gb, bytes_sent


def test_theory() -> None:
    def of(strategy: str, ranks: int, micro_batches: int = 1) -> float:
        return scaling.theoretical_bytes(strategy, ranks, 1000, micro_batches, 2)

    assert all(of(strategy, 1) == 0 for strategy in scaling.STRATEGIES)
    assert of("single", 2) == 0
    assert of("ddp", 2) == of("ddp", 2, 3) == 4000  # half of twice 4 bytes
    assert of("zero1", 4) == of("zero1", 4, 3) == 0.75 * 6000
    assert of("zero2", 4, 3) == 0.75 * 14000
    assert of("zero3", 4, 3) == of("fsdp2", 4, 3) == of("zero3_offload", 4, 3) == 0.75 * 3 * 8000


def test_bytes_of_this_process_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as here:
        there, _ = server.accept()
        with there:
            before = bytes_sent()
            reader = threading.Thread(target=lambda: there.makefile("rb").read(1 << 20))
            reader.start()
            here.sendall(bytes(1 << 20))
            reader.join()
            assert bytes_sent() - before == 1 << 20


def test_peak_memory_of_a_phase() -> None:
    phases, before = Phases(torch.device("cpu")), anonymous_gb()
    with phases.phase("work"):
        torch.ones(1 << 26)
    assert phases.peak_gb["work"] >= before
    assert phases.seconds["work"] > 0


@pytest.mark.slow
def test_ddp_sends_what_theory_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.json"
    options = ["--shape", "4x512", "--vocab", "500", "--device", "cpu", "--steps", "1", "--json", str(target)]
    assert scaling.main([*options, "--strategies", "single", "ddp", "--ranks", "1", "2"]) == 0
    assert "| ddp " in capsys.readouterr().out
    single, ddp = json.loads(target.read_text())["rows"]
    assert single["bytes_sent"] == single["bytes_by_theory"] == 0
    assert ddp["bytes_sent"] == pytest.approx(ddp["bytes_by_theory"], rel=0.01)
