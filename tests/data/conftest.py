"""Fixtures of the data tests."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hub_server import HubServer
from pyarrow import parquet
from small_tokenizer import small_backend

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.json of a few pieces."""
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    small_backend().save(str(file))
    return file


@pytest.fixture(scope="session")
def hub_server(tokenizer_file: Path) -> Iterator[HubServer]:
    """A Hub with one data set of two configurations (two commits) and a few models."""

    def table(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
        buffer = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
        return buffer.getvalue()

    def nli(extra: str) -> dict[str, bytes]:
        features = {
            "premise": {"dtype": "string", "_type": "Value"},
            "hypothesis": {"dtype": "string", "_type": "Value"},
            "label": {"names": ["entailment", "neutral", "contradiction"], "_type": "ClassLabel"},
        }
        types = pa.schema({"premise": pa.string(), "hypothesis": pa.string(), "label": pa.int64()})
        schema = types.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        files = {}
        lines = ["---", "configs:"]
        for language in ("en", "de"):
            lines += [f"- config_name: {language}", "  data_files:"]
            for split, count in (("train", 4), ("validation", 3), ("test", 3)):
                path = f"{language}/{split}-00000-of-00001.parquet"
                lines += [f"  - split: {split}", f"    path: {path}"]
                files[path] = table(
                    [
                        {"premise": f"{language} premise {i}{extra}", "hypothesis": f"{split} {i}", "label": i % 3}
                        for i in range(count)
                    ],
                    schema,
                )
        return {"README.md": "\n".join([*lines, "---", ""]).encode(), **files}

    small = {
        "config.json": b'{"model_type": "xlm-roberta-xl"}',
        "tokenizer.json": tokenizer_file.read_bytes(),
        "README.md": b"x",
        "onnx/model.onnx": b"no",
        "onnx/config.json": b"{}",
    }
    with HubServer() as server:
        server.commit("datasets", "team/nli", nli(""))
        server.commit("datasets", "team/nli", nli(" again"))
        server.commit("models", "team/both", small | {"model.safetensors": b"safe", "pytorch_model.bin": b"bin"})
        server.commit("models", "team/bin", small | {"pytorch_model.bin": b"bin"})
        server.commit("models", "team/empty", {"README.md": b"x"})
        server.gated.add("team/gated")
        yield server


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., str]:
    """Run Python text in a new process with its own Hub cache; return what it printed."""

    def run(code: str, **environment: str) -> str:
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XLMRXL_"))}
        variables |= {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=variables | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run
