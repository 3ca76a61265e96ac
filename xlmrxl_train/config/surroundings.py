"""What is around training: scores, trackers, plans, folders."""

from dataclasses import dataclass

from xlmrxl_train.config.keys import key


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """When and on what the model is scored."""

    languages: list[str] = key(
        [], "languages to score; empty: every language of the data set whose test split the source has"
    )
    every: int | None = key(
        None, "optimizer steps between looks at the validation split; null: once per epoch; 0: never"
    )
    select: str = key("best", "best | last; best: the checkpoint with the best validation score in select_languages")
    select_languages: list[str] = key([], "languages that select the checkpoint; empty: the training languages")
    test: bool = key(True, "score the test split once at the end")
    tokens_per_batch: int = key(16384, "tokens per forward pass on one rank")
    bootstrap: int = key(1000, "resamples for the 95 % interval")
    predictions: bool = key(True, "write every test prediction to <run>/predictions/<language>.jsonl")
    html: bool = key(True, "write the report also as <run>/report.html, a page of 2 MB that needs no network")
    submission: str | None = key(
        None, "xtreme: write test predictions also as XTREME's evaluate.py reads them, to <run>/submission; null: no"
    )


@dataclass(kw_only=True, slots=True)
class TrackerConfig:
    """Where metrics go beside metrics.jsonl."""

    names: list[str] = key(
        [], "wandb | tensorboard | mlflow | trackio, or several: tracker=[wandb,mlflow]; empty: none"
    )
    project: str = key("xlmrxl_train", "what gathers runs: a project of wandb and trackio, an experiment of MLflow")
    entity: str | None = key(None, "wandb: user or team that owns the project; null: who is logged in")
    mode: str = key("offline", "wandb: online | offline | disabled; offline: kept in <run>/wandb for `wandb sync`")
    group: str | None = key(
        None, "runs of one group are shown together; null: the recipe's name, and what a sweep varies"
    )
    tags: list[str] = key([], "words to find the run by, beside its seed")
    mlflow_uri: str | None = key(
        None, "MLflow's tracking server or store; null: $MLFLOW_TRACKING_URI, else a SQLite file in <run>/mlflow"
    )
    trackio_dir: str | None = key(
        None, "folder of trackio's store; null: $TRACKIO_DIR, else trackio's own, of the user"
    )


@dataclass(kw_only=True, slots=True)
class PlanConfig:
    """What `xlmrxl plan` is asked about; a run itself looks at the machine that it is on."""

    hardware: str = key("auto", "of each machine: 8xA100-80GB, H200, 4xcpu, ...; auto: this machine's")
    nodes: int = key(1, "machines")
    efficiency: float | None = key(
        None, "share of the matrix peak that is reached; null: that of this machine's last run, else 0.4"
    )
    length: float | None = key(
        None, "tokens of an example on average, where the training data is not here; null: real XNLI pairs'"
    )
    examples: int | None = key(None, "of the training set, where it is not here; null: not known, or XNLI's")


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """Where a run lives."""

    recipe: str = key("", "set by the choice of recipe")
    name: str = key("seed-${seed}", "name of the run's folder")
    dir: str = key("runs/${run.recipe}/${run.name}", "the run's folder")
    resume: str = key("auto", "auto | never | a checkpoint folder; auto: go on where the run in run.dir stopped")
