"""MLflow."""

import importlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from accelerate.tracking import MLflowTracker

from xlmrxl_train.config import Config, leaves

ID = "xlmrxl_train.id"  # a tag: MLflow chooses the id of a run itself


class MLflow:
    """One run on a server or in a SQLite file, found again by a tag."""

    name = "mlflow"

    def __init__(self, config: Config, folder: Path, identity: str, uri: str | None) -> None:
        """Begin nothing yet.

        Args:
            config: Of the run, without secrets.
            folder: The run's.
            identity: What the run is called.
            uri: tracker.mlflow_uri.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it reports its use over the network
        importlib.import_module("mlflow")  # here, since imports in two threads can meet
        for name in ("mlflow", "alembic"):  # they tell of every table that they make
            logging.getLogger(name).setLevel(logging.ERROR)
        given = uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.folder, self.identity = folder, identity
        self.own = None if given else (folder / "mlflow").absolute()
        self.uri = given or f"sqlite:///{self.own}/mlflow.db"
        self.where = f"mlflow ui --backend-store-uri {self.uri}" if self.own else self.uri
        self.parameters = dict(leaves(config))
        self.tracker = MLflowTracker(
            experiment_name=config.tracker.project,
            logging_dir=f"{self.own.as_uri()}/artifacts" if self.own else None,
            run_name=config.run.name,
            tags={
                "group": config.tracker.group or config.run.recipe,
                "seed": str(config.seed),
                "tags": ", ".join(config.tracker.tags),
            },
        )
        self.tracker.tags = {**(self.tracker.tags or {}), ID: identity}  # $MLFLOW_TAGS takes the place of those above

    def start(self) -> None:
        """Begin the run, or go on with it."""
        mlflow = importlib.import_module("mlflow")
        if self.own:
            self.own.mkdir(exist_ok=True)
        before = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(self.uri)  # which sets the variable too, where the next run would find it
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
        mlflow.end_run()  # of a try that failed half-way
        client, found = mlflow.MlflowClient(), []
        if experiment := client.get_experiment_by_name(self.tracker.experiment_name):
            found = client.search_runs([experiment.experiment_id], f"tags.`{ID}` = '{self.identity}'", max_results=1)
        if found:
            self.tracker.run_id = found[0].info.run_id
        self.tracker.start()
        if not found:
            self.tracker.store_init_configuration(self.parameters)
            self.keep([self.folder / name for name in ("config.yaml", "environment.json")])

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add one point to each curve."""
        self.tracker.log(values, step=step)

    def keep(self, files: Sequence[Path]) -> None:
        """Add files as artifacts."""
        for file in files:
            if file.is_file():
                self.tracker.log_artifact(str(file))

    def finish(self) -> None:
        """End the run, as finished or as one that may go on."""
        if (self.folder / "report.json").is_file():
            self.tracker.finish()
        else:
            importlib.import_module("mlflow").end_run("KILLED")

    def abandon(self) -> None:
        """Nothing holds the process."""
