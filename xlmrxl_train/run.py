"""The composition root: a configuration -> live objects -> train, evaluate, prepare. It alone knows everybody."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlmrxl_train.account import Scores, ended_early, evaluated_again, introduce, log_scores, protocol, selection_score
from xlmrxl_train.config import Config
from xlmrxl_train.data.cache_folder import cache_folder
from xlmrxl_train.data.corpus import Corpus
from xlmrxl_train.evaluation.evaluator import Evaluator
from xlmrxl_train.evaluation.html.page import write_page
from xlmrxl_train.evaluation.protocol import Protocol
from xlmrxl_train.evaluation.report import Report
from xlmrxl_train.evaluation.submission import write_submission
from xlmrxl_train.forecast import settle
from xlmrxl_train.handover import export
from xlmrxl_train.hub import resolve_model
from xlmrxl_train.inference.export.card import write_card
from xlmrxl_train.inference.export.usage import PIPELINE_TAGS
from xlmrxl_train.inference.model_folder import open_model_folder
from xlmrxl_train.launcher import is_first
from xlmrxl_train.lineage import protocol_of
from xlmrxl_train.parallel import Strategy, from_first_rank, naming_lost_ranks
from xlmrxl_train.progress import progress
from xlmrxl_train.session import Session
from xlmrxl_train.stop import CTRL_C, Stopped, StopRequest
from xlmrxl_train.track.console import Console
from xlmrxl_train.track.environment import environment
from xlmrxl_train.track.json_lines import JsonLines
from xlmrxl_train.track.secrets import redact
from xlmrxl_train.track.trackers import Trackers
from xlmrxl_train.track.trackers import require as require_trackers
from xlmrxl_train.training.batches import StepBatches
from xlmrxl_train.training.checkpoint import Checkpointer
from xlmrxl_train.training.checkpoint import load as load_checkpoint
from xlmrxl_train.training.folder import RunFolder, writing
from xlmrxl_train.training.guard import Guard
from xlmrxl_train.training.shared_folder import check_shared
from xlmrxl_train.training.start import enter_folder, find_start
from xlmrxl_train.training.state import TrainState
from xlmrxl_train.training.trainer import Look, Trainer
from xlmrxl_train.training_sets import chance_loss


def train(config: Config) -> Report | None:
    """Train, or go on with a run that stopped; then score every language and write the report and the model.

    Returns:
        The report; None where the run stopped early on purpose (`<run>/stopped.json` says why), or was finished before.
    """
    require_trackers(config.tracker)
    console = Console(enabled=is_first())
    with console.live(), StopRequest(config.train.max_hours, console.say) as stop:
        session = Session.open(config, training=True, console=console)
        folder, training = RunFolder(Path(config.run.dir)), None
        try:
            training = Training.open(session, folder, stop)
            return training.run() if training else None
        except Stopped:
            step = training.state.step if training else None
            if session.world.is_first:
                folder.write_stopped(stop.reason or "another rank was asked to stop", step)
            when = "before training began" if step is None else f"after step {step}"
            session.console.say(f"stopped {when}; the same command goes on from there")
            if stop.reason == CTRL_C:
                raise KeyboardInterrupt from None
            return None
        except BaseException as error:
            if session.world.is_first:
                folder.write_failed(error, training.state.step if training else None)
            raise
        finally:
            folder.release()
            session.world.close()


@dataclass(kw_only=True)
class Training:
    """A run that is under way: everything that `run` needs, opened in the order in which faults are cheapest."""

    session: Session
    folder: RunFolder
    corpora: dict[str, Corpus]  # by split; without those that are not looked at
    strategy: Strategy
    evaluator: Evaluator
    checkpointer: Checkpointer
    state: TrainState
    metrics: JsonLines | None  # on rank 0
    trackers: Trackers | None  # likewise; they read metrics.jsonl
    stop: StopRequest

    @classmethod
    def open(cls, session: Session, folder: RunFolder, stop: StopRequest) -> "Training | None":
        """Open data, then the run's folder, then the model; None where the run is finished already.

        Raises:
            Stopped: A stop was requested meanwhile.
        """
        config, world, say = session.config, session.world, session.console.say
        corpora = open_corpora(session, stop)
        if world.any(stop()):
            raise Stopped
        for line in settle(session, corpora["train"]) if "train" in corpora else []:
            say(line)
        prints = world.first(lambda: session.fingerprints(corpora))  # one rank looks at weights, or asks the Hub
        if not world.first(lambda: enter_folder(folder, config, prints)):
            if world.is_first:
                complete(session, folder.path)
                say((folder.path / "report.md").read_text(encoding="utf-8"))
            say(f"{folder.path} is finished; for another run choose run.name, seed or run.dir")
            return None
        check_shared(folder.path, world)
        start = world.first(lambda: find_start(folder, config, say))
        strategy, state = session.strategy(corpora.get("train")), TrainState()
        if start.checkpoint:
            state = load_checkpoint(start.checkpoint, strategy)
            start.apply(state)
        if world.any(stop()):
            raise Stopped
        metrics = trackers = None
        if world.is_first:
            write_environment(session, folder, prints)
            metrics = folder.open_metrics(keep=state.metrics_lines)
            trackers = Trackers.open(config, folder.path, step=state.step + state.repeated, say=say)
        return cls(
            session=session,
            folder=folder,
            corpora=corpora,
            strategy=strategy,
            evaluator=session.evaluator(strategy, stop),
            checkpointer=Checkpointer(
                folder.checkpoints,
                keep=config.train.keep_checkpoints,
                background=config.train.checkpoint_in_background,
            ),
            state=state,
            metrics=metrics,
            trackers=trackers,
            stop=stop,
        )

    @property
    def selecting(self) -> bool:
        """Whether the validation split chooses the checkpoint; otherwise the last one is taken."""
        session = self.session
        best = session.config.evaluate.select == "best"
        return best and "validation" in self.corpora and bool(session.select_languages) and session.task.trains

    def run(self) -> Report:
        """Train, select, test, report.

        Raises:
            Stopped: A stop was requested; the state is saved.
        """
        session = self.session
        try:
            if session.task.trains:
                self.train()
            else:
                self.validate(self.state)  # a task without training may still set something by the validation split
            return self.finish()
        finally:
            if self.trackers:
                self.trackers.close()
            if self.metrics:
                self.metrics.close()

    def train(self) -> None:
        """Train to the last step."""
        config, world = self.session.config, self.session.world
        batches = StepBatches(
            corpus=self.corpora["train"],
            task=self.session.task,
            seed=config.seed,
            batch_size=config.train.batch_size,
            token_budget=int(config.train.tokens_per_micro_batch),
            temperature=config.train.sampling_temperature,
            rank=world.rank,
            world_size=world.size,
        )
        trainer = Trainer(
            config=config,
            strategy=self.strategy,
            batches=batches,
            checkpointer=self.checkpointer,
            console=self.session.console,
            metrics=self.metrics,
            validate=self.validate,
            state=self.state,
            stop=self.stop,
            chance=chance_loss(self.session.training_sets),
        )
        introduce(self.session, self.strategy, batches)
        trainer.run()

    def validate(self, state: TrainState) -> Look:
        """Score the validation split; return what selects the checkpoint, and what tells of a model that fails."""
        if "validation" not in self.corpora:
            return Look()
        scores = self.evaluator.evaluate(self.corpora["validation"], intervals=False)
        score = selection_score(self.session, scores)
        log_scores(self.session, self.metrics, scores, step=state.step, split="validation", selection=score)
        watched = [code for code in self.session.select_languages if code in scores] or list(scores)
        return Look(score=score if self.selecting else None, constant=all(scores[code].constant for code in watched))

    def finish(self) -> Report:
        """Go to the selected checkpoint, write the model, score the test split once, and write the report."""
        session, state = self.session, self.state
        selected = state.best_step if self.selecting and state.best_step is not None else state.step
        if selected != state.step:
            session.console.say(f"checkpoint of step {selected}: best on the validation split")
            with progress.doing("reading the selected checkpoint"):
                session.world.first(lambda: self.checkpointer.verify_best(state.step))
                load_checkpoint(self.checkpointer.path(selected), self.strategy)
        if session.config.train.save_model and session.task.trains:
            checkpoint = self.checkpointer.path(selected)
            with progress.doing("writing the model"):
                session.world.first(lambda: export(session, self.strategy, checkpoint, self.folder.path))
        split = "test" if "test" in self.corpora else "validation"
        scores: Scores = {}
        if split in self.corpora:
            folder = self.folder.path / "predictions" if session.config.evaluate.predictions else None
            with writing(self.folder.path / "predictions"):
                scores = self.evaluator.evaluate(self.corpora[split], intervals=True, folder=folder)
            log_scores(session, self.metrics, scores, step=state.step, split=split)
            submit(session, self.folder.path)
        report = Report(
            protocol=protocol(session, split, state, selected, self.selecting),
            languages=scores,
            metrics=session.task.metrics,
            notes=[*session.task.notes, *ended_early(session.config.train, state), *Guard.notes(state)],
        )
        if session.world.is_first:
            with writing(self.folder.path / "report.json"):
                report.write(self.folder.path)
            if scores:
                describe_model(session, self.folder.path / "model")
            session.console.say(report.to_markdown())
            html = draw(session, self.folder.path) if scores else []
            written = [name for name in ("predictions", "model", "adapter") if (self.folder.path / name).is_dir()]
            names = ", ".join(["report.json", *html, *(f"{name}/" for name in written)])
            session.console.say(f"written: {self.folder.path / 'report.md'}, {names}")
        return report


def describe_model(session: Session, folder: Path) -> None:
    """Write the model card, from the run's report, where there is a model that others can load."""
    if (folder / "config.json").is_file() and session.task.model_class.__name__ in PIPELINE_TAGS:
        write_card(open_model_folder(str(folder)), folder)


def open_corpora(session: Session, stop: Callable[[], bool] = lambda: False) -> dict[str, Corpus]:
    """Open every split that the run looks at; nothing is written but the cache.

    Raises:
        Stopped: A stop was requested while rows were read.
    """
    config = session.config
    trained = list(dict.fromkeys([*session.train_languages, *session.shot_languages]))
    languages = {"train": trained} if session.task.trains else {}
    if config.evaluate.every != 0:
        languages["validation"] = session.validation_languages()
    if config.evaluate.test:
        languages["test"] = session.evaluate_languages
    return {split: session.corpus(split, codes, stop) for split, codes in languages.items() if codes}


def evaluate(folder: str | Path, config: Config | None = None) -> Report:
    """Score the model of a run folder on the test split, and write the report below `<folder>/evaluation/`.

    Args:
        folder: A run folder with `model/`.
        config: What to evaluate; by default what the run itself evaluated.

    Raises:
        RunError: The folder is not a run, or has no model or no report yet.
    """
    run = RunFolder(Path(folder))
    run.check_has_model()
    trained = protocol_of(run.path)
    config = config or run.read_config()
    return score(config, trained, run.model, run.evaluation_of(config.dataset.name))


def score(config: Config, trained: Protocol, model: Path, target: Path, notes: Sequence[str] = ()) -> Report:
    """Score a model on the test split of a configuration, and write report and predictions.

    Args:
        config: Of the run whose test split it is.
        trained: How the model came about.
        model: A folder with weights and tokenizer.
        target: Where to write.
        notes: What else the report is to say.
    """
    config.model.path = config.tokenizer.path = str(model)
    session = Session.open(config, training=False)
    with session.at_work():
        corpus = session.corpus("test", session.evaluate_languages)
        strategy = session.strategy()
        predictions = target / "predictions" if config.evaluate.predictions else None
        with writing(target):
            scores = session.evaluator(strategy).evaluate(corpus, intervals=True, folder=predictions)
        submit(session, target)
        report = Report(
            protocol=evaluated_again(session, trained),
            languages=scores,
            metrics=session.task.metrics,
            notes=[*notes, *session.task.notes],
        )
        if session.world.is_first:
            with writing(target):
                report.write(target)
            session.console.say(report.to_markdown())
            html = draw(session, target) if report.languages else []
            names = ", ".join(["report.json", *html])
            session.console.say(f"written: {target / 'report.md'}, {names}")
        return report


def complete(session: Session, folder: Path) -> None:
    """Write model card and page of a run that was killed between its report, which finished it, and them."""
    try:
        scored = bool(json.loads((folder / "report.json").read_text(encoding="utf-8"))["languages"])
    except (OSError, ValueError, LookupError, TypeError):  # whoever reads it says what is wrong with it
        return
    if not scored:
        return
    if not (folder / "model" / "README.md").exists():
        describe_model(session, folder / "model")
    if not (folder / "report.html").exists():
        draw(session, folder)


def draw(session: Session, folder: Path) -> list[str]:
    """Write the report as a page and return its name; what keeps it from being drawn costs a line, not the run."""
    if not session.config.evaluate.html:
        return []
    try:
        write_page(folder)
    except Exception as error:  # whatever it is, the scores are written and the model is there
        session.console.say(f"report.html was not written ({type(error).__name__}: {error}); all else of the run was")
        return []
    return ["report.html"]


def submit(session: Session, folder: Path) -> None:
    """Write the predictions in a folder as a benchmark's own script reads them, if that was asked for."""
    if session.config.evaluate.submission and session.world.is_first:
        with writing(folder / "submission"):
            write_submission(
                folder / "predictions", folder / "submission", session.config.dataset, session.evaluate_languages
            )


def prepare(config: Config) -> None:
    """Fetch weights, tokenizer and data and tokenise every split, so that training needs no network."""
    session = Session.open(config)
    with session.at_work():
        for split, corpus in open_corpora(session).items():
            session.console.say(
                f"{split}: {len(corpus):,} examples, {int(corpus.sizes.sum()):,} tokens, "
                f"{len(corpus.languages)} languages, longest {int(corpus.sizes.max())}"
            )
        if config.model.path:
            session.console.say(
                f"weights: {session.world.first(lambda: resolve_model(str(config.model.path), config.model.revision))}"
            )
        session.console.say(f"prepared in {cache_folder(config.data)}")


def launch(command: str, compose: Callable[[], Config]) -> int:
    """Run a command on every rank with the configuration that rank 0 composes; return the exit code."""
    with naming_lost_ranks():
        config = from_first_rank(compose)
        if command == "train":
            train(config)
        elif command == "evaluate":
            evaluate(config.run.dir, config)
        else:
            prepare(config)
    return 0


def write_environment(session: Session, folder: RunFolder, fingerprints: dict[str, Any]) -> None:
    """Write environment.json."""
    values = {
        **environment(),
        "world_size": session.world.size,
        "device": str(session.world.device),
        "tokens_per_micro_batch": session.config.train.tokens_per_micro_batch,
        "recompute": session.config.train.recompute,
        **fingerprints,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    folder.write("environment.json", json.dumps(redact(values), indent=1) + "\n")
