"""What every command is made of: the ranks, the data, the task, and the model that is built for them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from xlmrxl_train.checks import check as check_config
from xlmrxl_train.config import Config, LoraTuningConfig, TuningConfig, ZeroConfig, leaves, lengths_of
from xlmrxl_train.data.cache_folder import cache_folder
from xlmrxl_train.data.corpus import Corpus, Part, open_corpus
from xlmrxl_train.data.examples import Row
from xlmrxl_train.data.languages import language
from xlmrxl_train.data.planning import steps_per_epoch
from xlmrxl_train.data.shots import Draw
from xlmrxl_train.data.sources import Source, open_source
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.evaluation.evaluator import Evaluator
from xlmrxl_train.evaluation.submission import xtreme_task
from xlmrxl_train.hashing import sampled_sha256
from xlmrxl_train.hub import resolve_model
from xlmrxl_train.lineage import parents_of
from xlmrxl_train.metrics import load as load_metric
from xlmrxl_train.model import PreTrained, XLMRobertaXLLayer
from xlmrxl_train.model.source import ParameterSource
from xlmrxl_train.outline import plain_model
from xlmrxl_train.parallel import (
    Blueprint,
    Statement,
    Strategy,
    World,
    check_engine,
    differences,
    make_strategy,
    same_versions,
    versions,
)
from xlmrxl_train.plan.checking import check_memory
from xlmrxl_train.progress import progress
from xlmrxl_train.stop import until_stopped
from xlmrxl_train.tasks import Task, make_task
from xlmrxl_train.track.console import Console
from xlmrxl_train.track.secrets import redact
from xlmrxl_train.training.capabilities import check_capabilities
from xlmrxl_train.training.layers import prepare_layers
from xlmrxl_train.training.optimizer import OptimizerPlan
from xlmrxl_train.training.trainer import seed_of
from xlmrxl_train.training.tuning import tune
from xlmrxl_train.training.vocabulary import check_embeddings, freeze_embeddings, frozen_dtypes
from xlmrxl_train.training_sets import Shots, TrainingSet, open_training_sets

SAMPLE_TOKENIZER = Path(__file__).parent / "data" / "sample"
NEW_WEIGHTS = 1 << 40  # the stream of random numbers for weights that no checkpoint holds


@dataclass(kw_only=True)
class Session:
    """What every command needs: who runs it, on which data, for which task."""

    config: Config
    world: World
    console: Console
    source: Source
    tokenizer: Tokenizer
    task: Task
    training_sets: list[TrainingSet]
    parents: list[dict[str, Any]]  # protocols of the runs that the weights came from
    shots: dict[str, Shots] = field(default_factory=dict)  # by language; known when the training split is open

    @classmethod
    def open(cls, config: Config, *, training: bool | None = None, console: Console | None = None) -> "Session":
        """Join the world and open tokenizer and data; no model yet, no row read.

        Args:
            config: All of it is checked.
            training: Whether memory is to hold what training needs, or the weights alone; None: no model is loaded.
            console: That of the command, if it speaks before there is a session.
        """
        if training is False:  # all that there is to know of how the weights came about lies in them
            config = replace(config, tuning=TuningConfig())
        check_config(config)
        world = World.open(config.strategy)
        world.examine({name: repr(value) for name, value in leaves(config)}, _same_settings)
        world.examine(versions(*_packages(config)), same_versions)
        with progress.doing("opening tokenizer, data set and weights"):
            console = console or Console(enabled=world.is_first)
            session = world.together(lambda: cls._of(config, world, console, training=training))
        tokenizer = {"tokenizer": session.tokenizer.fingerprint}
        world.examine(tokenizer, partial(differences, remedy="Give every machine the same tokenizer file"))
        return session

    @classmethod
    def _of(cls, config: Config, world: World, console: Console, *, training: bool | None) -> "Session":
        """Open what needs no other rank."""
        tokenizer = open_tokenizer(config)
        source = open_source(config.dataset, config.data)
        task = make_task(config.task, config.dataset, tokenizer)
        for metric in task.metrics:
            load_metric(metric)
        if config.evaluate.submission:
            xtreme_task(config.dataset)
        session = cls(
            config=config,
            world=world,
            console=console,
            source=source,
            tokenizer=tokenizer,
            task=task,
            training_sets=open_training_sets(config, source, task),
            parents=[] if training is False else parents_of(config.model.path),
        )
        session.shot_splits()
        for code in dict.fromkeys([*session.train_languages, *session.evaluate_languages, *session.shot_languages]):
            language(code)  # reports name it; better refused now than after training
        lacking = [code for code in config.evaluate.select_languages if code not in session.select_languages]
        if lacking and config.evaluate.select == "best" and config.evaluate.every != 0:
            raise ConfigError(
                f"evaluate.select_languages must have a validation split of {config.dataset.name}, "
                f"got {', '.join(lacking)}. Choose others, or set evaluate.select=last."
            )
        if training and config.train.patience is not None and not session.select_languages:
            raise ConfigError(
                f"train.patience needs a language with a validation split of {config.dataset.name} in "
                "evaluate.select_languages, got none. Name one, or set train.patience=null."
            )
        outline, weights = build_model(config, task, tokenizer)  # names and shapes only, before a folder is made
        if training is False and weights.report and weights.report.misfit:
            raise ConfigError(
                f"dataset={config.dataset.name} must suit the trained model, but {weights.report.misfit}. "
                "Evaluate on a data set with the same labels, or train on this one with model.path=<run folder>."
            )
        if training is not None:
            check_memory(world, config, outline, training=False)
            check_engine(world, config.strategy, outline)
        if training:
            check_embeddings(config, task)
            check_capabilities(config, world.device)
        return session

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Show in a terminal what is done inside, and leave the world at the end."""
        try:
            with self.console.live():
                yield
        finally:
            self.world.close()

    @property
    def train_languages(self) -> list[str]:
        """Return the languages to train on, over all data sets."""
        return list(dict.fromkeys(code for training in self.training_sets for code in training.languages))

    @property
    def shot_languages(self) -> list[str]:
        """Return the languages of the evaluated data set of which a few examples are trained on."""
        settings = self.config.train
        if not settings.shots:
            return []
        trained = [] if self.config.mixture else self.train_languages
        return settings.shot_languages or [code for code in self.evaluate_languages if code not in trained]

    def shot_splits(self) -> dict[str, str]:
        """Return the split that the shots of each language are drawn from.

        Raises:
            ConfigError: A language has none.
        """
        wanted = self.config.train.shot_split
        names = ("train", "validation") if wanted == "auto" else (wanted,)
        splits = {
            code: next((name for name in names if self.source.has(name, code)), "") for code in self.shot_languages
        }
        if lacking := [code for code, name in splits.items() if not name]:
            raise ConfigError(
                f"train.shot_languages must have a {' or '.join(names)} split of {self.config.dataset.name}, "
                f"got {', '.join(lacking)}. Choose other languages, or another train.shot_split."
            )
        return splits

    @property
    def evaluate_languages(self) -> list[str]:
        """Return the languages to score: those asked for, else those whose test split the source has, else all."""
        known = self.config.dataset.languages
        held = [code for code in known if self.source.has("test", code)]
        return list(self.config.evaluate.languages or held or known)

    @property
    def left_out_languages(self) -> list[str]:
        """Return the data set's languages that are not scored because the source lacks them."""
        if self.config.evaluate.languages:
            return []
        return [code for code in self.config.dataset.languages if code not in self.evaluate_languages]

    @property
    def select_languages(self) -> list[str]:
        """Return the languages whose validation score selects the checkpoint; without any, the last one is taken."""
        wanted = self.config.evaluate.select_languages or self.train_languages
        return [code for code in wanted if self.source.has("validation", code)]

    def corpus(self, split: str, languages: list[str], stop: Callable[[], bool] = lambda: False) -> Corpus:
        """Open a split, tokenised; rank 0 fills the cache, the others wait for it.

        Args:
            split: train, which may be of several data sets, and decides which examples validation goes without: open
                it first. Or validation, or test.
            languages: Of these only.
            stop: Whether to leave off reading rows.

        Raises:
            Stopped: A stop was requested while rows were read.
            ConfigError: A rank does not find the data that rank 0 has.
        """
        parts = self._parts(split, languages)
        corpus = self._open(split, parts, stop)
        if split == "train":
            drawn = [(part, table.ids) for part, table in zip(parts, corpus.tables, strict=True) if part.draw]
            self.shots = {part.language: Shots(split=part.split, ids=ids) for part, ids in drawn}
        return corpus

    def _open(self, split: str, parts: list[Part], stop: Callable[[], bool]) -> Corpus:
        world = self.world

        def check() -> None:
            for part in parts:
                with part.faults_named():
                    part.source.check(part.split, [part.language])

        def fingerprint() -> dict[str, str]:
            check()
            return {
                f"{part.split} data of {part.name}": part.source.fingerprint(part.split, part.language)
                for part in parts
            }

        def build(rows: Callable[[Part], Iterator[Row]]) -> Corpus:
            return open_corpus(
                split,
                parts,
                self.tokenizer.fingerprint,
                rows=rows,
                limit=self.config.data.limit,
                cache=cache_folder(self.config.data),
            )

        stoppable = until_stopped(Part.rows, stop)
        with progress.doing(f"reading the {split} split"):
            if world.size == 1:
                check()
                return build(stoppable)
            same_data = partial(differences, remedy="Give every machine the same files")
            world.examine(world.together(fingerprint), same_data)
            world.first(lambda: build(stoppable) and None)
            # Nothing is read here, unless a machine has a cache of its own: then all wait for it, stop or no stop.
            return world.together(lambda: build(Part.rows))

    def _parts(self, split: str, languages: list[str]) -> list[Part]:
        """Return what the tables of a split are made of."""
        if split != "train":
            # In every language, since parallel data sets have translations of a shot under its id.
            drawn = [id_ for shots in self.shots.values() if shots.split == split for id_ in shots.ids]
            left_out = tuple(dict.fromkeys(drawn))
            return [
                Part(split=split, language=code, source=self.source, encoder=self.task, without=left_out)
                for code in languages
            ]
        whole = [
            Part(split=split, language=code, source=training.source, encoder=training.task, dataset=training.key)
            for training in self.training_sets
            for code in training.languages
            if code in languages
        ]
        draw = Draw(count=self.config.train.shots, seed=self.config.seed)
        return whole + [
            Part(split=name, language=code, source=self.source, encoder=self.task, draw=draw)
            for code, name in self.shot_splits().items()
            if code in languages
        ]

    def fingerprints(self, corpora: dict[str, Corpus]) -> dict[str, Any]:
        """Return what a run that goes on must find unchanged beside its configuration."""
        data = {split: corpus.fingerprint for split, corpus in corpora.items()}
        found: dict[str, Any] = {"data": data, "tokenizer": self.tokenizer.fingerprint}
        settings = self.config.model
        if isinstance(self.config.tuning, LoraTuningConfig) and settings.path:  # checkpoints lack what lies below
            files = resolve_model(settings.path, settings.revision).iterdir()
            found["weights"] = sampled_sha256(file for file in files if file.suffix in (".safetensors", ".bin"))
        return found

    def validation_languages(self) -> list[str]:
        """Return the languages of the validation split that are looked at, those that select first."""
        wanted = dict.fromkeys([*self.select_languages, *self.evaluate_languages])
        return [code for code in wanted if self.source.has("validation", code)]

    def strategy(self, train: Corpus | None = None) -> Strategy:
        """Build the model and spread it over the world, to be trained on `train`, or on nothing."""
        with progress.doing("building the model"):
            return self._strategy(train)

    def _strategy(self, train: Corpus | None) -> Strategy:
        model, source = build_model(self.config, self.task, self.tokenizer)
        for line in source.report.lines(Path(str(self.config.model.path))) if source.report else []:
            self.console.say(f"head    {line}")
        if train and (said := freeze_embeddings(self.config, self.task, train, model, source)):
            self.console.say(f"vocab   {said}")
        steps = steps_per_epoch(len(train), self.config.train.batch_size) if train else 0
        blueprint = Blueprint(
            model=model,
            block=XLMRobertaXLLayer,
            source=source,
            make_optimizer=OptimizerPlan(self.config.optimizer, model, steps).build,
            kept=frozen_dtypes(self.config, model, source),
        )
        strategy = make_strategy(self.config, self.world, blueprint)
        if isinstance(self.config.tuning, LoraTuningConfig):
            from xlmrxl_train.training.adapters import fill_rounded  # late: an optional package

            fill_rounded(model, source, self.world.device)
        return strategy

    def evaluator(self, strategy: Strategy, stop: Callable[[], bool] = lambda: False) -> Evaluator:
        """Return what scores the strategy's model."""
        settings = self.config.evaluate
        return Evaluator(
            strategy=strategy,
            task=self.task,
            tokens_per_batch=settings.tokens_per_batch,
            resamples=settings.bootstrap,
            console=self.console,
            stop=stop,
        )


def _same_settings(statements: list[Statement]) -> list[str]:
    return redact(differences(statements, remedy="Start every rank with the same words"))


def _packages(config: Config) -> list[str]:
    """Return what the engine of the strategy comes from, if it is not torch."""
    return ["deepspeed"] if isinstance(config.strategy, ZeroConfig) else ["accelerate"]


def open_tokenizer(config: Config) -> Tokenizer:
    """Open tokenizer.path, else the one beside the weights, else the sample's.

    Raises:
        ConfigError: There is none, or it cannot be used.
    """
    if config.tokenizer.path:
        return Tokenizer.from_path(config.tokenizer.path, config.tokenizer.revision)
    if config.model.path:
        revision = config.tokenizer.revision or config.model.revision
        return Tokenizer.from_path(config.model.path, revision, key="model.path")
    if config.data.source == "sample" or (
        config.data.source == "auto" and not config.data.root and not config.dataset.hub
    ):
        return Tokenizer.from_path(SAMPLE_TOKENIZER)
    raise ConfigError(
        "tokenizer.path must be set where model.path is null, got null. "
        "Set tokenizer.path=<tokenizer.json, folder or Hub id>, or model.path."
    )


def build_model(config: Config, task: Task, tokenizer: Tokenizer) -> tuple[PreTrained, ParameterSource]:
    """Return the task's model on the meta device, and where its values come from: model.path, or random numbers.

    Names and shapes are checked; no weight is read and no memory taken.

    Raises:
        ConfigError: The tokenizer has more tokens than the model has rows, or texts may be longer than its positions.
        CheckpointError: The weights do not fit.
    """
    settings = config.model
    folder = resolve_model(settings.path, settings.revision) if settings.path else None
    model = plain_model(config, task, len(tokenizer), folder)
    source = model.source(folder, seed_of(config.seed, NEW_WEIGHTS))  # the same new weights on every rank
    if len(tokenizer) > model.config.vocab_size:
        raise ConfigError(
            f"tokenizer.path has {len(tokenizer):,} tokens, more than the model's {model.config.vocab_size:,} rows. "
            "Use the tokenizer that belongs to the weights, or set model.vocab_size."
        )
    positions = model.config.max_position_embeddings - 2
    if faults := [
        f"{key} must be at most {positions}, the model's positions, got {length}."
        for key, length in lengths_of(config.task).items()
        if length > positions
    ]:
        raise ConfigError(*faults)
    source = tune(model, source, config.tuning)
    prepare_layers(model, config.train)
    return model, source
