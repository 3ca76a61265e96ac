"""What every command is made of: the ranks, the data, the task, and the model that is built for them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from xlmrxl_train.checks import check as check_config
from xlmrxl_train.config import Config
from xlmrxl_train.data.cache import cache_folder
from xlmrxl_train.data.corpus import Corpus, open_corpus
from xlmrxl_train.data.languages import language
from xlmrxl_train.data.sources import Source, open_source
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.evaluation.evaluator import Evaluator
from xlmrxl_train.hub import resolve_model
from xlmrxl_train.metrics import load as load_metric
from xlmrxl_train.model import PreTrained, XLMRobertaXLConfig
from xlmrxl_train.model.encoder import XLMRobertaXLEncoder
from xlmrxl_train.parallel import Strategy, World, check_memory, make_strategy
from xlmrxl_train.stop import until_stopped
from xlmrxl_train.tasks import Task, make_task
from xlmrxl_train.track.console import Console
from xlmrxl_train.training.optimizer import make_optimizer
from xlmrxl_train.training.trainer import seed_of

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
    outline: PreTrained = field(init=False)  # the model on the device "meta": names and shapes, no memory

    @classmethod
    def open(cls, config: Config) -> "Session":
        """Join the world and open tokenizer and data; no model yet, no row read."""
        check_config(config)
        world = World.open(config.strategy)
        console = Console(enabled=world.is_first)
        tokenizer = open_tokenizer(config)
        source = open_source(config.dataset, config.data)
        task = make_task(config.task, config.dataset, tokenizer)
        for metric in task.metrics:
            load_metric(metric)
        session = cls(config=config, world=world, console=console, source=source, tokenizer=tokenizer, task=task)
        for code in dict.fromkeys([*session.train_languages, *session.evaluate_languages]):
            language(code)  # reports name it; better refused now than after training
        session.outline = build_model(config, task, tokenizer, device="meta")  # checked before a folder is made
        return session

    @property
    def train_languages(self) -> list[str]:
        """Return the languages to train on."""
        languages = self.config.train.languages
        return list(self.config.dataset.languages if languages == ["all"] else languages)

    @property
    def evaluate_languages(self) -> list[str]:
        """Return the languages to score."""
        return list(self.config.evaluate.languages or self.config.dataset.languages)

    @property
    def select_languages(self) -> list[str]:
        """Return the languages whose validation score selects the checkpoint."""
        return list(self.config.evaluate.select_languages or self.train_languages)

    def corpus(self, split: str, languages: list[str], stop: Callable[[], bool] = lambda: False) -> Corpus:
        """Open a split, tokenised; rank 0 fills the cache, the others wait for it.

        Raises:
            Stopped: A stop was requested while rows were read.
        """
        self.source.check(split, languages)

        def build() -> Corpus:
            return open_corpus(
                self.source,
                until_stopped(self.source.rows, stop),
                self.task,
                self.tokenizer.fingerprint,
                split=split,
                languages=languages,
                limit=self.config.data.limit,
                cache=cache_folder(self.config.data),
            )

        if self.world.size > 1:
            self.world.first(lambda: build() and None)
        return build()

    def validation_languages(self) -> list[str]:
        """Return the languages of the validation split that are looked at, those that select first."""
        wanted = dict.fromkeys([*self.select_languages, *self.evaluate_languages])
        return [code for code in wanted if self.source.has("validation", code)]

    def check_memory(self, *, training: bool) -> None:
        """Refuse a model that memory cannot hold, and warn where it cannot hold what training adds."""
        if warning := check_memory(self.world, self.config.strategy, self.outline, training=training):
            self.console.say(warning)

    def strategy(self) -> Strategy:
        """Build the model and spread it over the world."""
        model = build_model(self.config, self.task, self.tokenizer)
        return make_strategy(
            self.config, self.world, model, lambda module: make_optimizer(self.config.optimizer, module)
        )

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


def build_model(config: Config, task: Task, tokenizer: Tokenizer, device: str = "cpu") -> PreTrained:
    """Return the task's model in float32: the weights of model.path, or random ones of the configured shape.

    On the device "meta" everything is checked and nothing takes memory.

    Raises:
        ConfigError: The tokenizer has more tokens than the model has rows, or texts may be longer than its positions.
        CheckpointError: The weights do not fit.
    """
    settings = config.model
    dropout = {
        name: getattr(settings, name)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "initializer_range")
        if getattr(settings, name) is not None
    }
    options = dropout | task.model_options()
    torch.manual_seed(seed_of(config.seed, NEW_WEIGHTS))  # the same new weights on every rank
    model_class: type[PreTrained] = task.model_class
    if settings.path:
        model = model_class.from_pretrained(
            resolve_model(settings.path, settings.revision),
            dtype=torch.float32,
            device=device,
            attn_implementation=settings.attn_implementation,
            **options,
        )
    else:
        names = [
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "layer_norm_eps",
        ]
        shape = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
        vocabulary = settings.vocab_size or len(tokenizer)
        shape |= {"vocab_size": vocabulary, "attn_implementation": settings.attn_implementation}
        with torch.device(device):
            model = model_class(XLMRobertaXLConfig(**shape, **options))
    if len(tokenizer) > model.config.vocab_size:
        raise ConfigError(
            f"tokenizer.path has {len(tokenizer):,} tokens, more than the model's {model.config.vocab_size:,} rows. "
            "Use the tokenizer that belongs to the weights, or set model.vocab_size."
        )
    if config.task.max_length > model.config.max_position_embeddings - 2:
        raise ConfigError(
            f"task.max_length must be at most {model.config.max_position_embeddings - 2}, the model's positions, "
            f"got {config.task.max_length}."
        )
    encoder = next(module for module in model.modules() if isinstance(module, XLMRobertaXLEncoder))
    encoder.recompute = config.train.recompute
    return model
