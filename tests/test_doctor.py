"""`xlmrxl doctor`: green where a run would work, red with a remedy where it would not."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from xlmrxl_train.cli import main
from xlmrxl_train.doctor import quick as quick_checks
from xlmrxl_train.doctor.quick import disk, quick
from xlmrxl_train.hub import why_unreachable

Capture = pytest.CaptureFixture[str]
REPOSITORY = Path(__file__).resolve().parents[1]


def test_a_machine_that_is_ready(tmp_path, capsys: Capture, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["doctor", "recipe=demo", "model.path=null", f"run.dir={tmp_path / 'run'}", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ready"] is True
    found = {finding["name"]: finding for finding in said["findings"]}
    names = ["Python", "packages", "disk of run.dir", "torch", "speed of run.dir", "ranks", "Hub", "data", "plan"]
    assert set(names) <= set(found)
    assert "GB/s written" in found["speed of run.dir"]["found"]
    assert found["ranks"]["found"].startswith("one process; bandwidth between ranks is measured by torchrun")
    assert found["data"]["found"].startswith("sample NLI (sample): train in 15 languages")
    assert not (tmp_path / "run").exists() and not any(tmp_path.iterdir())


def test_quick_is_quick_and_has_no_torch(tmp_path) -> None:
    script = (
        "import sys; from xlmrxl_train.cli import main; code = main(['doctor', 'recipe=demo', '--quick']);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok   Python: 3.") and "disk of run.dir" in done.stdout


def test_what_is_red_has_a_remedy_and_a_code(tmp_path, capsys: Capture) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    words = ["recipe=demo", "model.path=null", f"tokenizer.path={tmp_path}", f"run.dir={tmp_path / 'run'}"]
    assert main(["doctor", *words]) == 1
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("red  tokenizer: "))
    assert lines[place + 1].startswith("     ")


def test_a_model_that_does_not_fit_is_red(tmp_path, capsys: Capture, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ["recipe=demo", "model.path=null", "model.hidden_size=200000", f"run.dir={tmp_path / 'run'}", "--json"]
    assert main(["doctor", *words]) == 1
    plan = json.loads(capsys.readouterr().out)["findings"][-1]
    assert plan["name"] == "plan" and plan["state"] == "red"
    assert "parameters need 1,442.1 GB for weights" in plan["found"]
    assert plan["remedy"] == "Choose a smaller model or a larger machine."


def test_a_disk_without_room_or_rights(tmp_path, monkeypatch) -> None:
    found = disk("disk", tmp_path / "runs" / "new", "run.dir")
    assert found.state in ("ok", "look") and "GB free" in found.found
    monkeypatch.setattr(quick_checks, "NONE", 1e9)
    found = disk("disk", tmp_path, "run.dir")
    assert (found.state, found.remedy) == ("red", "Free space (xlmrxl clean), or choose another run.dir.")
    if os.getuid():
        tmp_path.chmod(0o500)
        assert disk("disk", tmp_path, "run.dir").remedy == "Mend its permissions, or choose another run.dir."


def test_an_old_package_and_an_old_python(monkeypatch) -> None:
    monkeypatch.setattr(quick_checks, "requires", lambda name: ["torch>=99", "no-such-package", "x; extra == 'onnx'"])
    monkeypatch.setattr(quick_checks, "NEWEST", (3, 10))
    python, packages, *_ = quick(None)
    assert (python.state, python.remedy) == ("red", "Take Python 3.11 to 3.13.")
    assert packages.state == "red" and "wanted >=99; no-such-package is absent" in packages.found
    assert packages.remedy == "pip install -c constraints.txt -e ."


def test_a_driver_without_a_torch_for_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(quick_checks, "DRIVER", tmp_path / "version")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.1  Thu\n")
    monkeypatch.setattr(quick_checks, "version", lambda name: "2.13.0+cpu")
    driver = next(finding for finding in quick(None) if finding.name == "NVIDIA driver")
    assert (driver.state, driver.remedy) == ("red", "Install torch for CUDA.")


def test_whether_the_hub_answers(monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # it answers everything with a fault, which will do
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    assert why_unreachable() is None
    thread.join()
    server.server_close()
    assert str(why_unreachable()).startswith(f"http://127.0.0.1:{server.server_port} does not answer (")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert str(why_unreachable()).startswith("offline (HF_HUB_OFFLINE is set); ")


@pytest.mark.slow
def test_ranks_reach_each_other(tmp_path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "xlmrxl_train", "doctor", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    ranks = next(finding for finding in json.loads(done.stdout)["findings"] if finding["name"] == "ranks")
    assert ranks["found"].startswith("2 reach each other, ") and ranks["found"].endswith(" GB/s (cpu)")


def test_a_launcher_starts_no_rank_where_something_is_red(tmp_path) -> None:
    command = [REPOSITORY / "launch" / "local.sh", "recipe=demo", f"run.dir={tmp_path / 'run'}"]
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
    described = tmp_path / "xlmrxl_train-9.dist-info"  # as if this version needed what is not installed
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: xlmrxl_train\nRequires-Dist: no-such-package\n")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert (
        "red  packages: no-such-package is absent" in done.stderr and "error: this machine is not ready" in done.stderr
    )
    assert not (tmp_path / "run").exists()
