"""The words of `xlmrxl tune`, and the same search as a sweep of wandb; nothing is trained here."""

import sys
from pathlib import Path

import optuna
import pytest
import yaml

from xlmrxl_train.cli import load_config, main
from xlmrxl_train.cli.tune import EXAMPLES

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("--trials few", "--trials must be a whole number from 1, got few."),
        ("--workers 0", "--workers must be a whole number from 1, got 0."),
        ("--name a/b", "--name must be a folder's name of letters, digits, . _ and -, got a/b."),
        ("run.name=x", "run.name is set by tune, got run.name=x. Leave it out."),
        ("evaluate.test=true", "evaluate.test is set by tune, got evaluate.test=true. Leave it out."),
        ("run.dir=here", "run.dir must end in ${run.name}, got here for the first trial. Leave it out, or write "
         "'run.dir=/data/${run.name}'."),
        ("evaluate.every=0", "tune needs looks at the validation split, got evaluate.every=0. Set it to null, or to "
         "steps."),
        ("train.epoch=2", "train.epoch is not a key. Did you mean train.epochs?"),
        ("--storage here", "--storage must be sqlite | journal | an address such as postgresql://host/name, got here. "
         "sqlite and journal lie in the study's folder."),
        ("--launcher nowhere/start.sh", "--launcher must be a program with its words, got nowhere/start.sh. Check its "
         "path and quotes."),
        ("--launcher 'echo", "--launcher must be a program with its words, got 'echo. Check its path and quotes."),
        ("--write-wandb-sweep .", "--write-wandb-sweep must be a file, got .: Is a directory."),
    ],
)  # fmt: skip
def test_a_fault_is_one_line(capsys: Capture, words: str, fault: str) -> None:
    assert main(["tune", "recipe=demo", *words.split()]) == 2
    assert capsys.readouterr().err == f"error: {fault}\n"


def test_a_task_without_training_is_refused(capsys: Capture) -> None:
    assert main(["tune", "recipe=tatoeba"]) == 2
    assert capsys.readouterr().err == (
        "error: tune needs a task that trains, got task=retrieval. Choose another recipe.\n"
    )


def test_ranks_are_refused(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert main(["tune", "recipe=demo"]) == 2
    assert capsys.readouterr().err == (
        "error: tune starts its trials itself and cannot run under torchrun. Give torchrun as --launcher.\n"
    )


def test_a_missing_package_is_named(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "recipe=demo"]) == 2
    assert capsys.readouterr().err == (
        "error: tune needs the package optuna, found none. Run pip install 'xlmrxl_train[tune]'.\n"
    )


def test_help(capsys: Capture) -> None:
    assert main(["tune", "--help"]) == 0
    assert capsys.readouterr().out.endswith(f"{EXAMPLES}\n")


def test_wandb_reads_the_sweep_and_its_agent_writes_our_command_line(capsys: Capture) -> None:
    """By wandb's own code: from parameters to Optuna's distributions, from a command to words."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
    from wandb.sdk.sweeps.scheduler.optuna import search_space_from_sweep_config

    from xlmrxl_train.search.space import Choices, Range
    from xlmrxl_train.search.study import _distribution

    space = {
        "optimizer.lr": "{low: 0.1, high: 2, log: true, relative: true}",
        "schedule.warmup": "{low: 0, high: 0.2}",
        "model.hidden_dropout_prob": "{low: 0, high: 0.2, step: 0.05}",
        "train.batch_size": "{low: 8, high: 64, log: true}",
        "optimizer.unfreeze_after": "{choices: [0.0, 1.0]}",
        "train.max_skipped": "{low: 1, high: 9, step: 2}",
    }
    text = "".join(f"  {key}: {drawn}\n" for key, drawn in space.items())
    Path("mine.yaml").write_text(f"sampler: tpe\ngrace: 2\nspace:\n{text}  schedule: {{choices: [linear, cosine]}}\n")
    words = ["tune", "recipe=demo", "train.epochs=2", "--search", "mine.yaml", "--write-wandb-sweep", "sweep.yaml"]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("written: sweep.yaml; wandb sweep sweep.yaml begins it")
    sweep = yaml.safe_load(Path("sweep.yaml").read_text(encoding="utf-8"))
    found = search_space_from_sweep_config(sweep["parameters"])
    assert found["optimizer.lr"] == _distribution(Range(low=1e-4, high=2e-3, log=True))
    assert found["schedule.warmup"] == optuna.distributions.FloatDistribution(0, 0.2)
    assert found["model.hidden_dropout_prob"] == optuna.distributions.FloatDistribution(0, 0.2, step=0.05)
    assert found["train.batch_size"] == optuna.distributions.IntDistribution(8, 64, log=True)
    assert found["train.max_skipped"] == optuna.distributions.IntDistribution(1, 9, step=2)
    assert found["schedule"] == _distribution(Choices(examples=("linear", "cosine")))
    assert (sweep["method"], sweep["metric"]) == ("bayes", {"name": "selection/score", "goal": "maximize"})
    assert sweep["early_terminate"] == {"type": "hyperband", "min_iter": 3}

    drawn = {"optimizer.lr": 3e-05, "schedule.warmup": 0.1, "model.hidden_dropout_prob": 0.05, "train.batch_size": 12,
             "optimizer.unfreeze_after": 1.0, "train.max_skipped": 3, "schedule": "cosine"}  # fmt: skip
    macros = create_sweep_command_args({"args": {key: {"value": value} for key, value in drawn.items()}})
    command = create_sweep_command(sweep["command"])
    assert command[:4] == ["${env}", "python", "-m", "xlmrxl_train"] and command[-1] == "${args_no_hyphens}"
    config = load_config([*command[4:-1], *macros["args_no_hyphens"]])
    assert (config.optimizer.lr, config.train.batch_size, config.schedule.name) == (3e-5, 12, "cosine")
    assert (config.train.epochs, config.evaluate.test) == (2.0, False)
    assert (config.tracker.names, config.tracker.mode) == (["wandb"], "online")
    assert config.run.dir == "runs/demo/wandb/3e-05,0.1,0.05,12,1.0,3,cosine"
