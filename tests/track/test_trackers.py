"""wandb, TensorBoard, MLflow and trackio themselves: they hold what metrics.jsonl holds, and never hold up a run."""

import gc
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.test_run import quick
from tests.track.read_back import (
    expected,
    mlflow_run,
    mlflow_scalars,
    tensorboard_scalars,
    trackio_name,
    trackio_rows,
    wait_for,
    wandb_history,
    wandb_records,
    wandb_sessions,
)
from xlmrxl_train import load_config, train
from xlmrxl_train.cli import main
from xlmrxl_train.config import TrackerConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.track import trackers
from xlmrxl_train.track.json_lines import JsonLines
from xlmrxl_train.track.trackers import Trackers, require
from xlmrxl_train.training.speed import MEASURED

NAMES = "wandb | tensorboard | mlflow | trackio"
TIMED = {f"train/{name}" for name in MEASURED}
SECRET = "kD93hf-quiet-river-2201"
ADDRESS = "https://reader:open-sesame-77@data.example.org/sets"


@pytest.fixture(scope="module")
def resumed(tmp_path_factory) -> Path:
    """A run that died after step 12 and went on from the checkpoint of step 10, with all trackers and a secret."""
    folder = tmp_path_factory.mktemp("tracked") / "run"
    words = [
        f"data.cache={tmp_path_factory.getbasetemp() / 'cache'}",
        "tracker=[wandb,tensorboard,mlflow,trackio]",
        f"tracker.trackio_dir={tmp_path_factory.getbasetemp() / 'trackio'}",
        f"tracker.tags=[{SECRET},of-a-test]",
        f"data.root={ADDRESS}",
        "data.source=sample",
    ]
    log = JsonLines.log

    def die(self: JsonLines, event: str, values: dict) -> None:
        log(self, event, values)
        if event == "train" and values["step"] == 12:
            for name in ("wandb", "mlflow"):  # they have started; on a busy machine that takes longer
                wait_for(lambda name=name: knows(folder, name) >= 8, 90)
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_SERVICE_TOKEN", SECRET)
        patch.setattr(trackers, "LAST_WORDS", 90.0)  # a busy machine is not the subject here
        with patch.context() as dying:
            dying.setattr(JsonLines, "log", die)
            with pytest.raises(KeyboardInterrupt):
                train(quick(folder, *words))
        assert (folder / "checkpoints" / "step-00000010").is_dir()
        time.sleep(1.1)  # wandb names folders by the second
        assert train(quick(folder, *words)) is not None
    sessions = wandb_sessions(folder)
    wait_for(lambda: [len(wandb_history(session)) for session in sessions] == [4, 4])
    wait_for(lambda: any(record.HasField("artifact") for record in wandb_records(sessions[-1])))
    return folder


def test_wandb_goes_on_with_one_run(resumed) -> None:
    sessions = wandb_sessions(resumed)
    assert len(sessions) == 2
    runs = [record.run for session in sessions for record in wandb_records(session) if record.HasField("run")]
    assert {run.run_id for run in runs} == {json.loads((resumed / "tracker.json").read_text())["id"]}
    assert {run.project for run in runs} == {"xlmrxl_train"}
    assert {run.run_group for run in runs} == {"demo"}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["train"]["batch_size"] == 32
    assert config["environment"]["packages"]["wandb"]


def test_wandb_holds_what_metrics_hold_and_no_step_twice(resumed) -> None:
    first, second = (wandb_history(session) for session in wandb_sessions(resumed))
    assert [row["step"] for row in first] == [4, 7, 8, 12]
    assert [row["step"] for row in second] == [14, 16, 16, 16]  # not 12 again; train, validation, test
    curves: dict[str, list] = {}
    for row in first + second:
        step = row.pop("step")
        for name, value in row.items():
            curves.setdefault(name, []).append((step, value))
    wanted = expected(resumed)
    assert curves.keys() == wanted.keys()
    for name in wanted.keys() - TIMED:  # step 12 was timed twice
        assert curves[name] == wanted[name], name


def test_wandb_gets_the_files_of_the_end(resumed) -> None:
    found = [record.artifact for session in wandb_sessions(resumed) for record in wandb_records(session)]
    (artifact,) = [artifact for artifact in found if artifact.type == "report"]
    files = {"config.yaml", "environment.json", "report.json", "report.md", "report.html", "README.md"}
    assert {entry.path for entry in artifact.manifest.contents} == files


def test_wandb_draws_over_our_step(resumed) -> None:
    for session in wandb_sessions(resumed):
        metrics = [record.metric for record in wandb_records(session) if record.HasField("metric")]
        drawn = [metric for metric in metrics if metric.glob_name == "*" or metric.name == "train/loss"]
        assert drawn and {metric.step_metric or "step" for metric in drawn} == {"step"}


def test_tensorboard_holds_what_metrics_hold(resumed) -> None:
    assert len(list((resumed / "tensorboard").iterdir())) == 2
    curves, wanted = tensorboard_scalars(resumed), expected(resumed)
    assert curves.keys() == wanted.keys()
    for name, points in wanted.items():
        assert [step for step, _ in curves[name]] == [step for step, _ in points]
        assert [value for _, value in curves[name]] == pytest.approx([value for _, value in points], rel=1e-6)
    assert [step for step, _ in curves["train/loss"]] == [4, 8, 12, 16]
    assert [step for step, _ in curves["validation/accuracy/de"]] == [7, 14, 16]
    assert [step for step, _ in curves["test/accuracy/mean"]] == [16]


def test_mlflow_goes_on_with_one_run_and_holds_what_metrics_hold(resumed) -> None:
    curves, wanted = mlflow_scalars(resumed), expected(resumed)
    assert curves.keys() == wanted.keys()
    for name in wanted.keys() - TIMED:
        assert curves[name] == wanted[name], name
    assert [step for step, _ in curves["train/loss"]] == [4, 8, 12, 16]  # not 12 again
    found, client = mlflow_run(resumed)
    assert found.info.status == "FINISHED" and found.info.run_name == "seed-1"
    assert {"group": "demo", "seed": "1"}.items() <= found.data.tags.items()
    assert found.data.params["train.batch_size"] == "32"
    kept = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert kept == {"config.yaml", "environment.json", "report.json", "report.md", "report.html", "README.md"}


def test_trackio_goes_on_with_one_run_and_holds_what_metrics_hold(resumed) -> None:
    import trackio

    rows, curves = trackio_rows(resumed), {}
    assert [row["step"] for row in rows] == [4, 7, 8, 12, 14, 16, 16, 16]
    for row in rows:
        step = row.pop("step")
        for name, value in row.items():
            curves.setdefault(name, []).append((step, value))
    wanted = expected(resumed)
    assert curves.keys() == wanted.keys()
    for name in wanted.keys() - TIMED:
        assert curves[name] == wanted[name], name
    (run,) = [run for run in trackio.Api().runs("xlmrxl_train") if run.name == trackio_name(resumed)]
    assert run.config["_Group"] == "demo" and "seed-1" in run.config["tags"]
    assert run.config["train"]["batch_size"] == 32


def test_tensorboard_shows_report_and_model_card(resumed) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(resumed / "tensorboard"))
    events.Reload()
    assert {"report.md/text_summary", "README.md/text_summary"} <= set(events.Tags()["tensors"])


def test_a_run_that_its_trackers_know_is_told_nothing_again(resumed, capfd) -> None:
    for name in ("wandb", "tensorboard", "mlflow", "trackio"):
        assert main(["sync", str(resumed), "--to", name]) == 0
        assert capfd.readouterr().err.strip() == f"{name} knows all of {resumed} already"


def test_no_secret_is_in_the_run_folder(resumed) -> None:
    texts = {path: path.read_bytes() for path in resumed.rglob("*") if path.is_file() and path.suffix != ".safetensors"}
    for path in wandb_sessions(resumed):  # its binary log cuts texts at blocks
        texts[path] = b"".join(record.SerializeToString() for record in wandb_records(path))
    assert len(texts) > 10
    for path, text in texts.items():
        for secret in (SECRET.encode(), b"open-sesame-77"):
            assert secret not in text, path
    config = (resumed / "config.yaml").read_text(encoding="utf-8")
    assert "https://***@data.example.org/sets" in config
    assert "of-a-test" in config


def write_lines(folder: Path, *steps: int) -> JsonLines:
    log = JsonLines(folder / "metrics.jsonl", keep=0)
    for step in steps:
        log.log("train", {"step": step, "loss": 1 / step, "lr": 0.1, "grad_norm": float("nan")})
    return log


def open_trackers(folder: Path, name: str, step: int = 0) -> tuple[Trackers, list[str]]:
    said: list[str] = []
    config = load_config(["recipe=demo", f"run.dir={folder}", f"tracker={name}"])
    return Trackers.open(config, folder, step=step, say=said.append), said


def losses(folder: Path) -> list[int]:
    return [step for step, _ in tensorboard_scalars(folder)["train/loss"]]


def test_a_tracker_that_fails_for_a_while_is_told_everything(tmp_path, monkeypatch) -> None:
    from accelerate.tracking import TensorBoardTracker

    log, calls = TensorBoardTracker.log, []

    def fail_once(self, values, step=None, **options) -> None:
        calls.append(step)
        if len(calls) == 3:
            raise ConnectionError("the server is away")
        log(self, values, step=step, **options)

    monkeypatch.setattr(TensorBoardTracker, "log", fail_once)
    metrics = write_lines(tmp_path, 10, 20, 30)
    opened, said = open_trackers(tmp_path, "tensorboard")
    wait_for(lambda: len(calls) >= 5)
    metrics.log("train", {"step": 40, "loss": 0.1})
    metrics.close()
    opened.close()
    assert losses(tmp_path) == [10, 20, 30, 40]
    assert [line for line in said if " fails " in line] == [
        "tracker tensorboard fails (ConnectionError: the server is away); training and metrics.jsonl go on without it"
    ]


def test_what_a_tracker_missed_it_is_told_when_the_run_goes_on(tmp_path, monkeypatch) -> None:
    from accelerate.tracking import TensorBoardTracker

    with monkeypatch.context() as patch:
        patch.setattr(TensorBoardTracker, "log", lambda *_, **__: 1 / 0)
        write_lines(tmp_path, 10, 20).close()
        opened, said = open_trackers(tmp_path, "tensorboard")
        wait_for(lambda: any(" fails " in line for line in said))
        opened.close()
    assert said[-1] == (
        "tracker tensorboard failed: it was not told 2 of the lines of metrics.jsonl; "
        f"xlmrxl sync {tmp_path} --to tensorboard tells it"
    )
    opened, said = open_trackers(tmp_path, "tensorboard", step=20)
    opened.close()
    assert losses(tmp_path) == [10, 20]
    assert len(said) == 1


def test_a_damaged_tracker_json_begins_a_new_run(tmp_path) -> None:
    (tmp_path / "tracker.json").write_text('{"id": "abc"', encoding="utf-8")
    write_lines(tmp_path, 10).close()
    opened, _ = open_trackers(tmp_path, "tensorboard")
    opened.close()
    assert losses(tmp_path) == [10]
    assert len(json.loads((tmp_path / "tracker.json").read_text(encoding="utf-8"))["id"]) == 12


def test_a_tracker_that_hangs_stops_and_slows_nothing(tmp_path, monkeypatch, capfd) -> None:
    """The real tracker of TensorBoard, whose log never returns, in a real run."""
    from accelerate.tracking import TensorBoardTracker

    released = threading.Event()
    monkeypatch.setattr(TensorBoardTracker, "log", lambda *_, **__: released.wait())
    monkeypatch.setattr(trackers, "LAST_WORDS", 0.3)
    words = ["tracker=tensorboard", "train.max_steps=3", "train.log_every=1", "evaluate.every=0", "evaluate.test=false"]
    try:
        assert train(quick(tmp_path / "run", *words)) is not None
    finally:
        released.set()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    assert (
        "tracker tensorboard does not answer: it was not told 3 of the lines of metrics.jsonl" in capfd.readouterr().err
    )


@pytest.mark.parametrize(
    ("method", "said_last"),
    [
        ("start", "tracker tensorboard does not answer: it was not told 1 of the lines of metrics.jsonl"),
        ("finish", "tracker tensorboard does not answer; it was told everything"),
    ],
)
def test_a_tracker_that_hangs_at_either_end(tmp_path, monkeypatch, method, said_last) -> None:
    from accelerate.tracking import TensorBoardTracker

    released = threading.Event()
    monkeypatch.setattr(TensorBoardTracker, method, lambda *_: released.wait())
    monkeypatch.setattr(trackers, "LAST_WORDS", 2.0)
    write_lines(tmp_path, 10).close()
    opened, said = open_trackers(tmp_path, "tensorboard")
    began = time.monotonic()
    opened.close()
    assert time.monotonic() - began < 6
    released.set()
    assert said[-1].startswith(said_last)


def test_a_hanging_tracker_is_named_while_training_goes_on(tmp_path, monkeypatch) -> None:
    from accelerate.tracking import TensorBoardTracker

    released = threading.Event()
    monkeypatch.setattr(TensorBoardTracker, "start", lambda *_: released.wait())
    monkeypatch.setattr(trackers, "SILENT", 0.2)
    monkeypatch.setattr(trackers, "LAST_WORDS", 0.1)
    write_lines(tmp_path, 10).close()
    opened, said = open_trackers(tmp_path, "tensorboard")
    wait_for(lambda: bool(said))
    assert said == ["tracker tensorboard has not answered for 0 s; training and metrics.jsonl go on without it"]
    opened.close()
    released.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_wandb_whose_helper_process_dies(tmp_path, monkeypatch) -> None:
    import psutil

    monkeypatch.setattr(trackers, "LAST_WORDS", 5.0)
    metrics = write_lines(tmp_path, 10)
    opened, said = open_trackers(tmp_path, "wandb")
    wait_for(lambda: json.loads((tmp_path / "tracker.json").read_text())["known"])
    for process in psutil.Process().children():
        if process.name().startswith("wandb-core"):
            process.kill()
    for step in (20, 30):
        metrics.log("train", {"step": step, "loss": 0.5})
    metrics.close()
    began = time.monotonic()
    opened.close()
    assert time.monotonic() - began < 8
    assert sum("go on without it" in line for line in said) == 1
    # its client may take lines before it notices: then it is the end that fails
    assert said[-1].startswith(("tracker wandb failed: ", "tracker wandb failed at the end of the run: ")), said
    gc.collect()  # wandb leaves its dead helper without a wait


def test_wandb_works_again_in_the_same_process(tmp_path) -> None:
    write_lines(tmp_path, 10).close()
    opened, said = open_trackers(tmp_path, "wandb")
    opened.close()
    wait_for(lambda: wandb_history(wandb_sessions(tmp_path)[0]))
    assert [row["step"] for row in wandb_history(wandb_sessions(tmp_path)[0])] == [10]
    assert len(said) == 1


SILENT_SERVERS = {
    "wandb": {"WANDB_API_KEY": "0123456789" * 4, "WANDB_BASE_URL": "{server}"},
    "mlflow": {"MLFLOW_TRACKING_URI": "{server}"},
    "trackio": {"TRACKIO_SERVER_URL": "{server}", "TRACKIO_WRITE_TOKEN": "0123456789"},
}


@pytest.fixture(scope="module")
def told_silent_servers(tmp_path_factory) -> dict[str, tuple[subprocess.CompletedProcess, float]]:
    """What a process said whose server accepts and stays silent, and when it ended; all at once, as they wait."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"

        def tell(name: str) -> tuple[subprocess.CompletedProcess, float]:
            folder = tmp_path_factory.mktemp(name)
            script = f"""
                import time
                from pathlib import Path
                from tests.track.test_trackers import open_trackers, write_lines
                from xlmrxl_train import load_config
                from xlmrxl_train.track import trackers
                trackers.LAST_WORDS = 2.0
                folder = Path({str(folder)!r})
                config = load_config(["recipe=demo", f"run.dir={{folder}}", "tracker={name}", "tracker.mode=online"])
                trackers.require(config.tracker)
                write_lines(folder, 10).close()
                opened = trackers.Trackers.open(config, folder, step=0, say=print)
                opened.close()
                print("end", time.time())
            """
            env = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}  # a helper of its own
            env |= {key: value.format(server=address) for key, value in SILENT_SERVERS[name].items()}
            env["TRACKIO_DIR"] = str(folder / "trackio")
            command = [sys.executable, "-c", textwrap.dedent(script)]
            repository = Path(__file__).resolve().parents[2]
            return subprocess.run(
                command, capture_output=True, text=True, timeout=90, check=False, cwd=repository, env=env
            ), time.time()

        return dict(zip(SILENT_SERVERS, threads.map(tell, SILENT_SERVERS), strict=True))


@pytest.mark.parametrize("name", SILENT_SERVERS)
def test_a_server_that_never_answers_does_not_keep_the_process(told_silent_servers, name) -> None:
    """Without care the process waits at its end, with wandb for 90 s."""
    done, ended = told_silent_servers[name]
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said, _, end = done.stdout.strip().rpartition("\nend ")
    assert said.startswith(f"tracker {name} does not answer: it was not told 1 of the lines of metrics.jsonl")
    assert ended - float(end) < 10


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("tensorboard", "xlmrxl_train[tensorboard]"),
        ("wandb", "wandb"),
        ("mlflow", "xlmrxl_train[mlflow]"),
        ("trackio", "xlmrxl_train[trackio]"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_loaded(tmp_path, monkeypatch, name, install) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("xlmrxl_train.run.Session", None)
    with pytest.raises(ConfigError) as caught:
        train(quick(tmp_path / "run", f"tracker={name}"))
    assert str(caught.value) == f"tracker={name} needs the package {name}. Install it: pip install '{install}'."


def test_wandb_online_without_a_key(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"tracker.mode=online needs a key for wandb, found none. Run `wandb login`"):
        require(TrackerConfig(names=["wandb"], mode="online"))


def test_trackio_has_one_folder_in_a_process(resumed, tmp_path) -> None:
    with pytest.raises(ConfigError) as caught:
        require(TrackerConfig(names=["trackio"], trackio_dir=str(tmp_path)))
    assert str(caught.value).startswith("tracker.trackio_dir must be ")
    assert str(caught.value).endswith(f"already, got {tmp_path}. Begin a process for each folder.")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tracker.names=[comet]", f"tracker.names must be {NAMES}, each at most once, got ['comet']."),
        ("tracker=[wandb,wandb]", f"tracker.names must be {NAMES}, each at most once"),
        ("tracker.mode=dry", "tracker.mode must be online | offline | disabled, got 'dry'."),
        ("tracker.project='a/b'", r"tracker.project must be 1 to 128 characters, none of / \ # ? % :, got 'a/b'."),
        ("tracker.tags=['']", "tracker.tags must be words of 1 to 64 characters, got ['']."),
    ],
)
def test_faults(override, message) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(["recipe=demo", override])
    assert str(caught.value).startswith(message)


def test_disabled_is_none(tmp_path) -> None:
    config = load_config(["recipe=demo", f"run.dir={tmp_path}", "tracker=wandb", "tracker.mode=disabled"])
    opened = Trackers.open(config, tmp_path, step=0, say=pytest.fail)
    opened.close()
    assert not list(tmp_path.iterdir())


def knows(folder: Path, name: str) -> int:
    return json.loads((folder / "tracker.json").read_text())["known"].get(name, [0])[0]
