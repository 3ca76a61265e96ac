"""Reads what wandb, TensorBoard, MLflow and trackio left on disk."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path

BLOCK = 32768


def wandb_sessions(run: Path) -> list[Path]:
    """The folders below <run>/wandb, oldest first."""
    return sorted(path for path in (run / "wandb").glob("offline-run-*") if path.is_dir())


def wandb_records(session: Path) -> Iterator:
    """Yield the records of a session's binary log: LevelDB's log format behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data = next(session.glob("*.wandb")).read_bytes()
    assert data[:4] == b":W&B"
    place, record = 7, b""
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        if place + 7 + size > len(data):
            return  # wandb's helper, a process of its own, writes it a little later
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            message = wandb_internal_pb2.Record()
            message.ParseFromString(record)
            yield message
            record = b""


def wandb_history(session: Path) -> list[dict]:
    """The rows that were logged, without wandb's own fields."""
    rows = []
    for record in wandb_records(session):
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows.append({name: value for name, value in row.items() if not name.startswith("_")})
    return rows


def tensorboard_scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Curve -> its points, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(item.step, item.value) for item in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def mlflow_run(run: Path):
    """The only run in <run>/mlflow, as MLflow's own client reads it; and the client."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{run / 'mlflow' / 'mlflow.db'}")
    experiments = [item.experiment_id for item in client.search_experiments() if item.name == "xlmrxl_train"]
    (found,) = client.search_runs(experiments)
    return found, client


def mlflow_scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Curve -> its points, as MLflow holds them."""
    found, client = mlflow_run(run)
    curves = {}
    for name in found.data.metrics:
        points = client.get_metric_history(found.info.run_id, name)
        curves[name] = [(point.step, point.value) for point in points]
    return curves


def trackio_name(run: Path) -> str:
    """What trackio calls a run."""
    identity = json.loads((run / "tracker.json").read_text(encoding="utf-8"))["id"]
    return f"seed-1 {identity}"


def trackio_rows(run: Path) -> list[dict]:
    """The rows that were logged, in order."""
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("xlmrxl_train", trackio_name(run))
    return [{name: value for name, value in row.items() if name != "timestamp"} for row in rows]


def expected(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Curve -> its points, from metrics.jsonl."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        kind, step = event.pop("event"), event.pop("step")
        event.pop("total_steps", None)
        if kind in ("train", "selection"):
            named = {f"{kind}/{name}": value for name, value in event.items() if name != "metric"}
        else:
            split = event.pop("split")
            language = event.pop("language", None)
            event.pop("n", None)
            named = {}
            for metric, value in event.items():
                parts = {language: value} if language else value
                named |= {f"{split}/{metric}/{part}": number for part, number in parts.items()}
        for name, value in named.items():
            if value is not None:
                curves.setdefault(name, []).append((step, value))
    return curves


def wait_for(condition, seconds: float = 20.0) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
