"""The command line as a person meets it: help, faults in words, sweeps, exit codes. Nothing here is stubbed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from xlmrxl_train.cli import COMMANDS, main
from xlmrxl_train.cli.compose import compose_config, load_config, load_run_config
from xlmrxl_train.cli.help import MOST_USED
from xlmrxl_train.cli.library import library
from xlmrxl_train.cli.sweep import plan
from xlmrxl_train.cli.typed import keys_of
from xlmrxl_train.config import Config, DDPConfig, SequenceClassificationConfig, StrategyConfig, to_dict
from xlmrxl_train.errors import ConfigError, RunError

REPOSITORY = Path(__file__).resolve().parents[1]
Capture = pytest.CaptureFixture[str]


def faults(*overrides: str, config_dir: Path | None = None) -> list[str]:
    return list(compose_config(overrides, library(config_dir))[1])


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "xlmrxl_train", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


# Help


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def test_help_names_commands_groups_and_keys(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    for word in (*COMMANDS, *MOST_USED, "recipe=", "dataset=", "xnli_translate_train", "--config-dir", "--multirun"):
        assert word in page
    assert "XNLI, zero-shot: train in English, evaluate in 15 languages" in page
    assert max(map(len, page.splitlines())) <= 140


def test_most_used_keys_exist() -> None:
    assert set(MOST_USED) <= {key.name for key in keys_of(Config, {})}


def test_help_of_a_section_lists_every_key_with_its_text(capsys: Capture) -> None:
    assert main(["--help", "train"]) == 0
    page = capsys.readouterr().out
    for key in keys_of(Config, {}):
        assert (f"  {key.name}=" in page) == key.name.startswith("train.")
    assert "examples per optimizer step, over all ranks" in page
    assert main(["--help", "all"]) == 0
    page = capsys.readouterr().out
    assert all(f"  {key.name}=" in page for key in keys_of(Config, {}))
    assert "with strategy=ddp" in page and "strategy.bucket_mb=25" in page


@pytest.mark.parametrize("words", [["evaluate", "--help"], ["prepare", "-h"], ["evaluate", "runs/x", "--help"]])
def test_help_of_a_command(words: list[str], capsys: Capture) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith(f"usage: xlmrxl {words[0]} ")


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job", "recipe=xnli"], ["recipe=xnil"], ["--version"]])
def test_comes_without_torch(words: list[str]) -> None:
    script = f"""
import sys
from xlmrxl_train.cli import main
main({words!r})
slow = {{"torch", "transformers", "datasets", "accelerate", "numpy"}} & set(sys.modules)
assert not slow, slow
"""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, capture_output=True, timeout=120)


# The configuration


def test_cfg_prints_the_resolved_configuration(capsys: Capture) -> None:
    assert main(["--cfg", "job", "recipe=xnli", "seed=7", "optimizer.lr=2e-6"]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert values["run"] == {"recipe": "xnli", "name": "seed-7", "dir": "runs/xnli/seed-7", "resume": "auto"}
    assert values["optimizer"]["lr"] == 2e-6
    assert values["model"]["path"] == "facebook/xlm-roberta-xl"
    assert values["dataset"]["languages"] == "en fr es de el bg ru tr ar vi th zh hi sw ur".split()


def test_cfg_prints_what_composes_beside_the_faults(capsys: Capture) -> None:
    assert main(["train", "--cfg=job", "recipe=xnli", "task.max_length=4", "train.epoch=3"]) == 2
    printed = capsys.readouterr()
    assert yaml.safe_load(printed.out)["task"]["max_length"] == 4
    assert printed.err.splitlines() == [
        "error: train.epoch is not a key. Did you mean train.epochs?",
        "error: task.max_length must be at least 8, got 4.",
    ]


def test_command_line_beats_the_recipe() -> None:
    config = load_config(["recipe=xnli", "model=mini"])
    assert (config.model.name, config.model.path) == ("mini", None)


def test_recipe_builds_on_a_recipe() -> None:
    config = load_config(["recipe=xnli_translate_train"])
    assert (config.train.languages, config.train.batch_size) == (["all"], 128)
    assert config.run.recipe == "xnli_translate_train"


def test_variants_have_their_own_class() -> None:
    assert type(load_config(["recipe=xnli"]).strategy) is StrategyConfig
    config = load_config(["recipe=xnli", "strategy=ddp", "strategy.bucket_mb=50"])
    assert config.strategy == DDPConfig(name="ddp", bucket_mb=50.0)
    assert isinstance(config.task, SequenceClassificationConfig)


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("model.revision=12e4567", lambda config: config.model.revision, "12e4567"),  # not the number infinity
        ("run.name=0042", lambda config: config.run.name, "0042"),
        ("run.dir=/data/Jörg/läufe", lambda config: config.run.dir, "/data/Jörg/läufe"),  # Hydra wants quotes
        ("model.path=runs/xnli/seed-1,optimizer.lr=1e-5", lambda config: config.model.path, None),
        ("train.max_steps=1e3", lambda config: config.train.max_steps, 1000),
        ("optimizer.lr=1", lambda config: config.optimizer.lr, 1.0),
        ("train.save_model=False", lambda config: config.train.save_model, False),
        ("train.languages=[en,fr]", lambda config: config.train.languages, ["en", "fr"]),
        ("train.max_steps=${train.batch_size}", lambda config: config.train.max_steps, 128),
        ("+train.epochs=2", lambda config: config.train.epochs, 2.0),
        ("train={epochs: 2}", lambda config: config.train.epochs, 2.0),
        ("dataset.columns.text=other", lambda config: config.dataset.columns["text"], "other"),
        ("~dataset.columns.text_pair", lambda config: sorted(config.dataset.columns), ["label", "text"]),
        ("dataset.files.test.0.path=x.tsv", lambda config: config.dataset.files.test[0].path, "x.tsv"),
        ("dataset.hub.revision=abc", lambda config: config.dataset.hub.revision, "abc"),
    ],
)
def test_override_is_read_as_its_key_wants(override: str, read: Callable[[Config], object], expected: object) -> None:
    value = read(load_config(["recipe=xnli", override]))
    expected = override.partition("=")[2] if expected is None else expected
    assert value == expected and type(value) is type(expected)


# Faults


def test_all_faults_are_reported_together(capsys: Capture) -> None:
    words = "recipe=xnil model=mimi train.batchsize=3 train.epochs=abc optimizer.lr=-1 +new=1 train.precision=fp16"
    assert main(words.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 7 and all(line.startswith("error: ") for line in lines)
    text = "\n".join(lines)
    for part in (
        "recipe=xnil is not a choice. Did you mean recipe=xnli? There are ",
        "model=mimi is not a choice. Did you mean model=mini? There are mini, tiny, xl, xxl.",
        "train.batchsize is not a key. Did you mean train.batch_size?",
        "train.epochs must be a finite number, got abc.",
        "optimizer.lr must be greater than 0, got -1.0.",
        "new is not a key. ",
        "train.precision must be bf16 | fp32, got 'fp16'.",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("lr=1", "lr is not a key. Did you mean optimizer.lr?"),
        ("train.lr=1", "train.lr is not a key. Did you mean optimizer.lr?"),
        ("strategy.bucket_mb=3", "strategy.bucket_mb is not a key of the chosen strategy; it belongs to strategy=ddp."),
        ("task.kind=other", "task.kind is set by the choice of task. Write task=<name>."),
        ("run.recipe=other", "run.recipe is set by the choice of recipe. Write recipe=<name>."),
        ("seed=1,2", "seed must be one value, got 1,2: for a sweep add -m."),
        (
            "train.languages=en,fr",
            "train.languages must be one value, got en,fr: for a list write train.languages=[en,fr], "
            "for a sweep add -m.",
        ),
        (
            "run.name=a,b",
            "run.name must be one value, got a,b: for text with a comma write \"run.name='a,b'\", for a sweep add -m.",
        ),
        ("train.languages=en", "train.languages must be a list, e.g. train.languages=[a,b], got en."),
        ("train.languages=[en,xx]", "train.languages must be languages of XNLI, got xx. It has en, fr, es, de, el,"),
        ("train.max_steps=1.5", "train.max_steps must be a whole number or null, got 1.5."),
        ("train.epochs=null", "train.epochs must be a finite number, got null."),
        ("optimizer.lr=inf", "optimizer.lr must be a finite number, got inf."),
        ("train.save_model=maybe", "train.save_model must be true or false, got maybe."),
        ("train=3", "train must be a mapping of keys to values, got 3."),
        ("dataset.columns=3", "dataset.columns must be a mapping, e.g. 'dataset.columns={name: value}', got 3."),
        ("dataset.files.test=[{pth: x}]", "dataset.files.test[0] has no pth. Did you mean path?"),
        ("dataset.files.test.9.path=x", "dataset.files.test.9.path=x cannot be set: "),
        ("run.name=${nothing}", "run.name cannot be resolved: Interpolation key 'nothing' not found."),
        ("~train.epochs", "~train.epochs: a key cannot be removed. Set it to another value, or to null."),
        ("train.epochs=[", "train.epochs=[ cannot be read: "),
        ("hydra.run.dir=x", "hydra.run.dir is not a key: Hydra's own settings are fixed here."),
        ("word", "'word' is not an override. Write key=value."),
        ("dataset.name=???", "dataset.name must be given, got ???. Add dataset.name=<value>."),
        ("train.languages=[en,en]", "train.languages must be languages, each once, got ['en', 'en']."),
        ("task.class_weights=[0,1,1]", "task.class_weights must be finite numbers above 0, got [0.0, 1.0, 1.0]."),
        ("model.hidden_size=100", "model.hidden_size must be a multiple of model.num_attention_heads, got 100 and 32."),
    ],
)
def test_fault_in_words(override: str, fault: str) -> None:
    found = faults("recipe=xnli", override)
    assert found[0].startswith(fault), found
    assert "\n" not in found[0]


def test_recipe_is_asked_for() -> None:
    folder = REPOSITORY / "recipes"
    names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    assert faults("seed=2") == [f"recipe must be given: recipe=<name>. There are {', '.join(names)}."]


def test_a_sweep_is_not_started_by_every_rank(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert main(["-m", "recipe=xnli", "seed=1,2"]) == 2
    wanted = "error: -m starts its jobs itself and cannot run under torchrun. Start one torchrun per job.\n"
    assert capsys.readouterr().err == wanted


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["tran"], "tran is not a command. Did you mean train?"),
        (["recipe=xnli", "--mutlirun"], "--mutlirun is not a flag. Did you mean --multirun?"),
        (["recipe=xnli", "--cfg", "hydra"], "--cfg must be job, got hydra. Write --cfg job."),
        (["recipe=xnli", "--config-dir"], "--config-dir must be a folder, got nothing. Write --config-dir DIR."),
        (["recipe=xnli", "--config-dir", "none"], "--config-dir must be a folder, got none."),
        (["recipe=xnli", "prepare"], "prepare is a command and comes first: xlmrxl prepare ..."),
        (["--help", "trian"], "--help trian: there is no such key. Did you mean train?"),
        (["-m", "--cfg", "job", "recipe=xnli"], "--cfg shows one configuration, -m makes many. Leave one of them out."),
        (["evaluate", "x", "-m"], "evaluate takes no -m: every job would write the report of the same run."),
        (["-m", "recipe=xnli", "optimizer.lr=interval(0,1)"], "optimizer.lr=interval(0,1) cannot be swept over: "),
        (["-m", "recipe=glob(nothing*)"], "recipe=glob(nothing*) cannot be swept over: it matches nothing."),
    ],
)
def test_usage_fault_in_words(words: list[str], line: str, capsys: Capture) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")


def test_local_rank_is_ignored_with_a_note(capsys: Capture) -> None:
    assert main(["--local_rank=0", "--cfg", "job", "recipe=xnli"]) == 0
    assert "Launch with torchrun -m xlmrxl_train" in capsys.readouterr().err


def test_a_fault_is_said_by_one_rank_only(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["tran"]) == 2
    assert capsys.readouterr().err == ""


# The user's own files


def test_own_data_set_and_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own" / "dataset").mkdir(parents=True)
    (tmp_path / "own" / "recipe").mkdir()
    (tmp_path / "own" / "dataset" / "reviews.yaml").write_text(
        "name: Reviews\nkind: sequence_classification\nlanguages: [en, 'no']\n"
        "columns: {text: body, label: stars}\nlabels: [bad, good]\nlabel_values: {0: bad, 1: good}\n"
        "files:\n  train:\n    - path: '{language}.jsonl'\n",
        encoding="utf-8",
    )
    (tmp_path / "own" / "recipe" / "mine.yaml").write_text(
        "# reviews\ndefaults:\n  - xnli\n  - override /dataset: reviews\n  - override /model: mini\n  - _self_\n"
        "data: {root: /data, source: files}\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    config = load_config(["recipe=mine", "train.languages=[no]"], config_dir="own")
    assert (config.dataset.name, config.model.name, config.train.batch_size) == ("Reviews", "mini", 128)
    assert config.dataset.label_values == {"0": "bad", "1": "good"}
    assert config.train.languages == ["no"]
    assert config.run.dir == "runs/mine/seed-1"


def test_own_file_stands_before_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mini.yaml").write_text("name: mine\n", encoding="utf-8")
    assert load_config(["recipe=xnli", "model=mini"], config_dir=tmp_path).model.name == "mine"
    assert load_config(["recipe=xnli", "model=mini"]).model.name == "mini"


def test_faults_of_own_files_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    path = tmp_path / "dataset" / "own.yaml"
    path.write_text(
        "name: Own\nkind: sequence_classification\nlanguages: [en, no]\nlables: [a, b]\ncolumns: {text: a, label: b}\n"
        "labels: [x, y]\nfiles:\n  train:\n    - {path: a.tsv, seperator: ';', header: perhaps}\n",
        encoding="utf-8",
    )
    assert faults("recipe=xnli", "model=mini", "dataset=own", "seed=-1", config_dir=tmp_path) == [
        f"dataset.languages[1] must be text, got false. YAML reads an unquoted no, off, n and false as false: "
        f"quote 'no'. (in {path})",
        f"dataset.files.train[0] has no seperator. Did you mean separator? (in {path})",
        f"dataset.files.train[0].header must be true or false, got perhaps. (in {path})",
        f"dataset.lables is not a key. Did you mean dataset.labels? (in {path})",
        "seed must be 0 or more, got -1.",
    ]
    path.write_text("name: [", encoding="utf-8")
    assert faults("recipe=xnli", config_dir=tmp_path)[0].startswith(f"{path}:1 cannot be read as YAML: ")
    path.unlink()
    (tmp_path / "dataset").rmdir()
    assert faults("recipe=xnli", config_dir=tmp_path)[0].startswith(f"--config-dir {tmp_path} has none of the folders")


def test_a_recipe_that_names_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "bad.yaml").write_text("defaults:\n  - override /model: huge\n", encoding="utf-8")
    (fault, *_) = faults("recipe=bad", config_dir=tmp_path)
    assert fault.startswith("recipe=bad cannot be composed: ") and "model/huge" in fault


# A run's own configuration


def test_evaluate_reads_the_runs_configuration(tmp_path: Path) -> None:
    config = load_config(["recipe=xnli", "model=mini", "optimizer.lr=1e-4"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_dict(config)), encoding="utf-8")
    again = load_run_config(tmp_path, ["evaluate.languages=[de]", "strategy=ddp", "data.limit=10"])
    assert (again.optimizer.lr, again.evaluate.languages, again.data.limit) == (1e-4, ["de"], 10)
    assert again.run.dir == str(tmp_path) and again.run.recipe == "xnli"
    assert type(again.strategy) is DDPConfig
    with pytest.raises(ConfigError) as error:
        load_run_config(tmp_path, ["recipe=demo", "evaluate.language=[de]"])
    assert error.value.faults == (
        f"recipe is fixed by the run {tmp_path}. Leave it out.",
        "evaluate.language is not a key. Did you mean evaluate.languages?",
    )


def test_evaluate_wants_a_run_folder(tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(RunError, match=r"is not a run folder: it has no config\.yaml\. Give the folder"):
        load_run_config(tmp_path)
    assert main(["evaluate", str(tmp_path / "nothing"), "seed=1"]) == 2
    assert "is not a run folder: it does not exist." in capsys.readouterr().err


# Sweeps


def test_sweep_gives_every_job_its_own_folder() -> None:
    jobs = plan(["recipe=xnli", "seed=1,2", "optimizer.lr=1e-5,2e-5"], None)
    assert [job.folder for job in jobs] == [
        "runs/xnli/seed-1,optimizer.lr=1e-05",
        "runs/xnli/seed-1,optimizer.lr=2e-05",
        "runs/xnli/seed-2,optimizer.lr=1e-05",
        "runs/xnli/seed-2,optimizer.lr=2e-05",
    ]
    assert [job.folder for job in plan(["recipe=xnli", "seed=range(1,4)"], None)] == [
        f"runs/xnli/seed-{seed}" for seed in (1, 2, 3)
    ]
    assert {job.folder for job in plan(["recipe=glob(demo*)"], None)} == {
        "runs/demo/seed-1",
        "runs/demo_pretrain/seed-1",
    }


def test_trackers_show_the_seeds_of_one_combination_together() -> None:
    jobs = plan(["recipe=xnli", "seed=1,2", "optimizer.lr=1e-5,2e-5"], None)
    groups = [load_config(job.overrides).tracker.group for job in jobs]
    assert groups == [f"xnli optimizer.lr={rate}" for rate in ("1e-05", "2e-05", "1e-05", "2e-05")]
    assert {load_config(job.overrides).tracker.group for job in plan(["recipe=xnli", "seed=1,2"], None)} == {None}
    jobs = plan(["recipe=xnli", "optimizer.lr=1e-5,2e-5", "tracker.group=mine"], None)
    assert {load_config(job.overrides).tracker.group for job in jobs} == {"mine"}


def test_sweep_over_models_and_lists() -> None:
    jobs = plan(["recipe=xnli", "model=tiny,mini", "train.languages=[en],[en,fr]"], None)
    assert len({job.folder for job in jobs}) == 4
    config = load_config(jobs[3].overrides)
    assert (config.model.name, config.train.languages) == ("mini", ["en", "fr"])
    assert config.run.name == "seed-1,model=mini,train.languages=-en-fr-"


def test_sweep_refuses_one_folder_for_several_jobs() -> None:
    with pytest.raises(ConfigError, match=r"run\.dir must differ between jobs, got .*same for 2 of them"):
        plan(["recipe=xnli", "seed=1,2", "run.dir=same"], None)


def test_sweep_with_the_same_fault_in_all_jobs_says_it_once(capsys: Capture) -> None:
    assert main(["-m", "recipe=xnli", "seed=1,2", "train.batchsize=3"]) == 2
    assert capsys.readouterr().err == "error: train.batchsize is not a key. Did you mean train.batch_size?\n"


def test_a_failed_job_does_not_lose_the_others(tmp_path: Path) -> None:
    """Two jobs tokenise the sample, one finds no tokenizer, one has a faulty setting."""
    done = run(*"prepare -m recipe=demo data.limit=4 tokenizer.path=null,nowhere.json seed=1,-1".split(), cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    table = [line.split() for line in done.stdout.splitlines()[-4:]]
    assert [row[1] for row in table] == ["finished", "refused", "failed", "refused"]
    assert done.stderr.count("seed must be 0 or more, got -1.") == 2
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_xtremes_recipes_end_in_its_table(tmp_path: Path) -> None:
    """One task runs, one has no data here; started again, the finished one is skipped; the table marks the others."""
    words = (
        "-m recipe=xtreme/xnli,xtreme/paws_x model=tiny data.source=sample data.limit=20 train.max_steps=2 "
        "evaluate.bootstrap=10"
    ).split()
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()[-3:-1]] == ["finished", "refused"]
    command = "side by side: xlmrxl report runs/xtreme/xnli/seed-1"
    assert done.stdout.splitlines()[-1] == command
    before = (tmp_path / "runs/xtreme/xnli/seed-1/report.json").stat().st_mtime_ns
    again = run(*words, cwd=tmp_path)
    assert "runs/xtreme/xnli/seed-1 is finished" in again.stderr and again.stdout.splitlines()[-1] == command
    assert (tmp_path / "runs/xtreme/xnli/seed-1/report.json").stat().st_mtime_ns == before
    page = run(*command.split()[4:], cwd=tmp_path)
    assert page.returncode == 0, page.stderr
    assert "| XNLI | accuracy | " in page.stdout and "| stand-in data | none known | none known |" in page.stdout
    assert "| PAWS-X | accuracy | not run | not run | none known | none known |" in page.stdout


def test_ctrl_c_ends_a_sweep_with_130(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    words = "-m recipe=demo seed=1,2 train.epochs=100000 train.max_steps=null".split()
    process = subprocess.Popen(
        [sys.executable, "-m", "xlmrxl_train", *words],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives it
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("job 1 of 2: seed=1")
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted"
    rows = [line.split() for line in out.splitlines()[-2:]]
    assert rows[0][1] == "interrupted" and rows[1][1:3] == ["not", "started"]
