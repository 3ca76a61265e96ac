"""Every rule that a configuration must keep, broken once."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from xlmrxl_train.checks import _RULES, CHOICES, check, faults_of, faults_of_values
from xlmrxl_train.checks.tasks import METRICS
from xlmrxl_train.cli import load_config
from xlmrxl_train.config import (
    Config,
    DDPConfig,
    FSDP2Config,
    LastLayersTuningConfig,
    LoraTuningConfig,
    RetrievalConfig,
    TranslationConfig,
    Zero3Config,
    Zero3NvmeConfig,
)
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.tasks.sequence_classification import SequenceClassification

# A value that breaks a rule, by the rule's words or, where there are several ways to break it, by key.
BROKEN = {
    "greater than 0": 0,
    "greater than 0, or auto": 0,
    "0 or more": -1,
    "at least 0 and below 1": 1.0,
    "greater than 2 (two positions are never used)": 2,
    "a folder, with names of at most 250 characters": "",
    "between 0 and 1": 1.5,
    "above 0 and at most 1": 0.0,
    "two numbers, each at least 0 and below 1": [0.9],
    "at least 8": 7,
    "at least 12": 11,
    "1 or more": 0.5,
    "mean | first": "max",
    "an absolute path": "disk",
    "languages, each once": ["en", "en"],
    "finite numbers above 0": [1.0, float("inf")],
    "wandb | tensorboard | mlflow | trackio, each at most once": ["comet"],
    "xtreme or null": "glue",
    "int8 | nf4 or null": "int4",
    "some of query, key, value, attention_output, intermediate, output, each once": ["dense"],
    "1 to 128 characters, none of / \\ # ? % :": "a/b",
    "words of 1 to 64 characters": ["x" * 65],
    "none | full | selective | every_<n> with n from 2 | auto": "every_1",
    "a folder's name of 1 to 250 characters, without ..": "..",
}


# A strategy that has the key, where ddp does not.
STRATEGIES = {
    "strategy.reduce_bucket_mb": Zero3Config,
    "strategy.allgather_bucket_mb": Zero3Config,
    "strategy.shard_size": FSDP2Config,
    "strategy.hierarchical_size": Zero3Config,
    "strategy.prefetch_layers": FSDP2Config,
    "strategy.nvme_path": Zero3NvmeConfig,
    "strategy.sub_group_mb": Zero3NvmeConfig,
    "strategy.prefetch_mb": Zero3Config,
    "strategy.persistence_kb": Zero3Config,
    "strategy.max_live_mb": Zero3Config,
    "strategy.max_reuse_distance_mb": Zero3Config,
}


@pytest.fixture(scope="module")
def recipe() -> Callable[[], Config]:
    """A sound configuration, anew for each call."""
    sound = load_config(["recipe=xnli", "strategy=ddp"])
    assert faults_of(sound) == []
    return lambda: deepcopy(sound)


def put(config: Config, key: str, value: Any) -> Config:
    *sections, name = key.split(".")
    part: Any = config
    for section in sections:
        part = getattr(part, section)
    setattr(part, name, value)
    return config


@pytest.mark.parametrize("key", CHOICES)
def test_a_word_that_is_no_choice(key: str, recipe: Callable[[], Config]) -> None:
    choices = " | ".join(CHOICES[key])
    assert faults_of_values(put(recipe(), key, "other")) == [f"{key} must be {choices}, got 'other'."]


@pytest.mark.parametrize("key", _RULES)
def test_a_value_that_breaks_its_rule(key: str, recipe: Callable[[], Config]) -> None:
    (rule, _), config = _RULES[key], recipe()
    if key in ("task.pooling", "task.layer", "task.neighbours"):
        config.task = RetrievalConfig()
    if key == "task.max_target_length":
        config.task = TranslationConfig()
    config.strategy = STRATEGIES.get(key, DDPConfig)()
    config.tuning = LastLayersTuningConfig() if key == "tuning.layers" else LoraTuningConfig()
    assert faults_of_values(put(config, key, BROKEN[rule])) == [f"{key} must be {rule}, got {BROKEN[rule]!r}."]


LABELS = "entailment, neutral, contradiction"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.max_steps", 1 << 41, "train.max_steps must be at most 1,099,511,627,776, got 2,199,023,255,552."),
        (
            "model.hidden_size",
            100,
            "model.hidden_size must be a multiple of model.num_attention_heads, got 100 and 32.",
        ),
        (
            "model.max_position_embeddings",
            100,
            "task.max_length must be at most model.max_position_embeddings - 2 = 98, got 256.",
        ),
        (
            "train.tokens_per_micro_batch",
            64,
            "train.tokens_per_micro_batch must hold a sequence of task.max_length = 256 tokens, got 64.",
        ),
        (
            "dataset.kind",
            "masked_language_modelling",
            "task=sequence_classification cannot read dataset 'XNLI', whose kind is 'masked_language_modelling'. "
            "Choose task=masked_language_modelling.",
        ),
        ("train.languages", ["xx"], "train.languages must be languages of XNLI, got xx. It has en, fr, es, de, el, "),
        ("evaluate.languages", ["xx", "yy"], "evaluate.languages must be languages of XNLI, got xx, yy. It has en, "),
        ("evaluate.select_languages", ["xx"], "evaluate.select_languages must be languages of XNLI, got xx. It has "),
        ("train.languages", [], "train.languages must name at least one language, got none."),
        ("data.source", "files", "data.source=files needs data.root, got null. Set data.root=<folder of the data set"),
        ("dataset.metrics", ["perplexity"], "dataset.metrics must suit the task (accuracy, macro_f1), got perplexity"),
        (
            "task.problem_type",
            "ranking",
            "task.problem_type must be single_label_classification | multi_label_classification | regression, "
            "got 'ranking'.",
        ),
        (
            "task.problem_type",
            "multi_label_classification",
            "dataset.metrics must suit the task (micro_f1, multilabel_macro_f1), got accuracy, macro_f1. Choose other",
        ),
        (
            "task.problem_type",
            "regression",
            f"dataset.labels must be empty for regression, got {LABELS}. Remove them.",
        ),
        ("dataset.labels", ["a"], "dataset.labels must name at least two classes, got ['a']."),
        ("dataset.labels", ["a", "b", "a"], "dataset.labels must differ from one another, got a more than once."),
        ("dataset.label_values", {"0": "yes"}, "dataset.label_values must lead to dataset.labels, got yes."),
        ("task.class_weights", [1.0, 2.0], "task.class_weights must have one weight per label (3), got 2."),
        (
            "dataset.columns",
            {"text": "a", "label": "b", "text_par": "c"},
            "dataset.columns has no role 'text_par'. Its roles are text, text_pair, label.",
        ),
        (
            "dataset.columns",
            {},
            "dataset.columns must name a column for label and text, got {}. Add label: <column>, text: <column>.",
        ),
    ],
)
def test_keys_that_do_not_go_together(key: str, value: Any, message: str, recipe: Callable[[], Config]) -> None:
    faults = faults_of(put(recipe(), key, value))
    assert any(fault.startswith(message) for fault in faults), faults


def test_class_weights_belong_to_single_labels(recipe: Callable[[], Config]) -> None:
    config = put(put(recipe(), "task.class_weights", [1.0] * 3), "task.problem_type", "multi_label_classification")
    wanted = "task.class_weights are for single_label_classification, got multi_label_classification. Remove them."
    assert wanted in faults_of(config)


@pytest.mark.parametrize("source", ["hub", "files", "sample"])
def test_a_source_that_the_data_set_lacks(source: str, recipe: Callable[[], Config]) -> None:
    config = put(put(put(recipe(), f"dataset.{source}", None), "data.source", source), "data.root", "/data")
    assert faults_of(config) == [f"data.source={source} needs dataset.{source}, which XNLI lacks."]


def test_a_data_set_without_languages(recipe: Callable[[], Config]) -> None:
    config = put(put(recipe(), "dataset.languages", []), "train.languages", ["all"])
    assert faults_of(config) == ["dataset.languages must name at least one language, got none."]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task.mask_probability", 1.0, "task.mask_probability must be between 0 and 1, got 1.0."),
        (
            "dataset.columns",
            {"text_pair": "b"},
            "dataset.columns must name a column for text, got {'text_pair': 'b'}. Add text: <column>.",
        ),
        (
            "dataset.columns",
            {"text": "a", "label": "b"},
            "dataset.columns has no role 'label'. Its roles are text, text_pair.",
        ),
        (
            "dataset.metrics",
            ["accuracy"],
            "dataset.metrics must suit the task (loss, perplexity), got accuracy.",
        ),
        ("task.join", "files", "task.join must be none | lines | documents, got 'files'."),
        (
            "task.join",
            "lines",
            "task.join=lines is for rows of one text, and sample parallel has pairs (the role text_pair). "
            "Set task.join=none.",
        ),
    ],
)
def test_masked_language_modelling(key: str, value: Any, message: str) -> None:
    faults = faults_of(put(load_config(["recipe=demo_pretrain"]), key, value))
    assert len(faults) == 1 and faults[0].startswith(message), faults


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "dataset.labels",
            [],
            "dataset.labels must name two or more choices in order, as the data set writes them, got [].",
        ),
        ("dataset.labels", ["0", "0"], "dataset.labels must differ from one another, got 0 more than once."),
        ("dataset.label_values", {"A": "2"}, "dataset.label_values must lead to dataset.labels, got 2."),
        (
            "dataset.labels",
            ["0", "1", "2"],
            "dataset.columns must name one column as choices, or 3 as choice1 to choice3, one per label, got choice1, "
            "choice2.",
        ),
        (
            "dataset.columns",
            {"context": "a", "label": "b"},
            "dataset.columns must name one column as choices, or 2 as choice1 to choice2, one per label, got none.",
        ),
        (
            "dataset.columns",
            {"question": "q", "choice1": "a", "choices": "b", "label": "c"},
            "dataset.columns must name one column as choices, or 2 as choice1 to choice2, one per label, got choice1, "
            "choices.",
        ),
        (
            "dataset.columns",
            {"choices": "a", "label": "b"},
            "dataset.columns must name a column for context or question, got {'choices': 'a', 'label': 'b'}.",
        ),
        (
            "dataset.columns",
            {"context": "a", "question": "q", "choices": "b"},
            "dataset.columns must name a column for label, got ",
        ),
        (
            "dataset.columns",
            {"context": "a", "question": "q", "choices": "b", "label": "c", "premise": "d"},
            "dataset.columns has no role 'premise'. Its roles are context, question, choices, choice1, choice2, label.",
        ),
        (
            "dataset.templates",
            {"txt": "{context}"},
            "dataset.templates has no text 'txt'. Its texts are text, text_pair.",
        ),
        (
            "dataset.templates",
            {"text": "{premise}"},
            "dataset.templates.text must be text with {context} and {question}, each at most once, got '{premise}'.",
        ),
        (
            "dataset.templates",
            {"text": "{context} {context}"},
            "dataset.templates.text must be text with {context} and {question}, each at most once, got '{context} {con",
        ),
        (
            "dataset.templates",
            {"text": "So?"},
            "dataset.templates.text must be text with {context} and {question}, each",
        ),
        (
            "dataset.templates",
            {"text": "{context!r}"},
            "dataset.templates.text must be text with {context} and {question}",
        ),
        (
            "dataset.templates",
            {"text": "{context:>9}"},
            "dataset.templates.text must be text with {context} and {question}",
        ),
        (
            "dataset.templates",
            {"text": "{context} {choice}"},
            "dataset.templates.text must be text with {context} and {question}, each at most once, got '{context} {cho",
        ),
        (
            "dataset.templates",
            {"text": "{context"},
            "dataset.templates.text must be text with {context} and {question}, got '{context' (expected '}' before "
            "end of string). Write {{ for a brace.",
        ),
        (
            "dataset.templates",
            {"text_pair": "{context} {choice}"},
            "dataset.templates.text_pair must be text with {question} and {choice}, each at most once, got ",
        ),
        ("dataset.templates", {"text_pair": "So"}, "dataset.templates.text_pair must have {choice}, got 'So'."),
        ("dataset.metrics", ["macro_f1"], "dataset.metrics must suit the task (accuracy), got macro_f1. Choose others"),
    ],
)
def test_multiple_choice(key: str, value: Any, message: str) -> None:
    faults = faults_of(put(load_config(["recipe=xcopa"]), key, value))
    assert any(fault.startswith(message) for fault in faults), faults


def test_a_mixture_of_choices_may_have_other_numbers_of_them() -> None:
    config = load_config(["recipe=belebele"])
    assert len(config.dataset.labels) == 4 and len(config.mixture["siqa"].labels) == 3
    config.mixture["siqa"].labels = ["1", "2"]
    (fault,) = faults_of(config)
    assert fault.startswith("mixture.siqa.columns must name one column as choices, or 2 as choice1 to choice2, one per")


@pytest.mark.parametrize("key", ["evaluate.test", "evaluate.predictions"])
def test_a_submission_is_made_of_test_predictions(key: str, recipe: Callable[[], Config]) -> None:
    config = put(put(recipe(), "evaluate.submission", "xtreme"), key, False)
    got = "false and true" if key == "evaluate.test" else "true and false"
    assert faults_of(config) == [
        f"evaluate.submission needs evaluate.test=true and evaluate.predictions=true, got {got}. Set both, or "
        "evaluate.submission=null."
    ]


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_the_metrics_of_a_problem_suit_it(problem: str, recipe: Callable[[], Config]) -> None:
    config = put(recipe(), "task.problem_type", problem)
    config.dataset.labels = [] if problem == "regression" else config.dataset.labels
    config.dataset.metrics = list(SequenceClassification.metrics_of[problem])
    assert faults_of(config) == []
    assert METRICS[problem] == SequenceClassification.metrics_of[problem]


def test_causal_language_modelling_reads_what_masked_does() -> None:
    causal = load_config(["recipe=clm", "dataset=sample_parallel", "task.join=none"])
    assert faults_of(causal) == [] and causal.dataset.kind == "masked_language_modelling"
    put(put(causal, "dataset.metrics", ["accuracy"]), "task.join", "x")
    faults = faults_of(causal)
    assert faults[0] == "task.join must be none | lines | documents, got 'x'."
    assert faults[1].startswith("dataset.metrics must suit the task (loss, perplexity), got accuracy.")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "model.max_position_embeddings",
            130,
            "task.max_target_length must be at most model.max_position_embeddings - 2 = 128, got 140.",
        ),
        (
            "dataset.columns",
            {"text": "a"},
            "dataset.columns must name a column for text_pair, got {'text': 'a'}. Add text_pair: <column>.",
        ),
        (
            "dataset.columns",
            {"text": "a", "text_pair": "b", "label": "c"},
            "dataset.columns has no role 'label'. Its roles are text, text_pair.",
        ),
        ("dataset.metrics", ["accuracy"], "dataset.metrics must suit the task (bleu, chrf), got accuracy. Choose othe"),
    ],
)
def test_translation(key: str, value: Any, message: str) -> None:
    config = load_config(["recipe=translation", "task.max_target_length=140", "data.root=texts"])
    faults = faults_of(put(config, key, value))
    assert len(faults) == 1 and faults[0].startswith(message), faults


def test_translation_reads_pairs_of_language_modelling() -> None:
    for dataset in ("sample_parallel", "xnli_pairs", "translations"):
        assert faults_of(load_config(["recipe=translation", f"dataset={dataset}", "data.root=texts"])) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task.long", "cut", "task.long must be split | truncate, got 'cut'."),
        ("dataset.skip_labels", ["_"], "dataset.skip_labels leaves out rows of a classification, not words, got _. Re"),
        ("dataset.labels", ["O"], "dataset.labels must name at least two classes, got ['O']."),
        ("dataset.labels", ["O", "B-X", "O"], "dataset.labels must differ from one another, got O more than once."),
        ("dataset.label_values", {"0": "I-MISC"}, "dataset.label_values must lead to dataset.labels, got I-MISC."),
        (
            "dataset.columns",
            {"tokens": "a", "tags": "b", "label": "c"},
            "dataset.columns has no role 'label'. Its roles are tokens, tags.",
        ),
        (
            "dataset.columns",
            {"tokens": "a"},
            "dataset.columns must name a column for tags, got {'tokens': 'a'}. Add tags: <column>.",
        ),
        (
            "dataset.metrics",
            ["accuracy"],
            "dataset.metrics must suit the task (entity_f1, entity_f1_strict, pos_f1, tag_accuracy), got accuracy. Cho",
        ),
        ("train.languages", ["xx"], "train.languages must be languages of PAN-X, got xx. It has en, af, ar, "),
    ],
)
def test_token_classification(key: str, value: Any, message: str) -> None:
    faults = faults_of(put(load_config(["recipe=panx"]), key, value))
    assert len(faults) == 1 and faults[0].startswith(message), faults


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task.stride", 0, "task.stride must be greater than 0, got 0."),
        ("task.n_best", 0, "task.n_best must be greater than 0, got 0."),
        ("task.max_answer_length", -1, "task.max_answer_length must be greater than 0, got -1."),
        (
            "task.max_length",
            132,
            "task.stride must be below task.max_length - 4 = 128, so that no token is left out, got 128. "
            "Lower task.stride or raise task.max_length.",
        ),
        (
            "dataset.columns",
            {"question": "q"},
            "dataset.columns must name a column for context, got {'question': 'q'}. Add context: <column>.",
        ),
        (
            "dataset.columns",
            {"question": "q", "context": "c", "answer": "a"},
            "dataset.columns has no role 'answer'. Its roles are context, question, answers.",
        ),
        ("dataset.metrics", ["accuracy"], "dataset.metrics must suit the task (squad_f1, squad_exact_match, mlqa_f1, "),
        (
            "dataset.hub.id_prefixes",
            {"en": "english-", "sw": "swahili-"},
            "dataset.hub.id_prefixes must have one for every language, got none for ar, bn, fi, id, ko, ru, te.",
        ),
        (
            "dataset.id_column",
            None,
            "dataset.hub.id_prefixes needs dataset.id_column, got null. Name the column with the ids.",
        ),
    ],
)
def test_question_answering(key: str, value: Any, message: str) -> None:
    faults = faults_of(put(load_config(["recipe=tydiqa"]), key, value))
    assert len(faults) == 1 and faults[0].startswith(message), faults


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["optimizer.unfreeze_after=2", "train.epochs=2"],
            "optimizer.unfreeze_after must be below train.epochs = 2.0, got 2.0. Lower it, or train longer.",
        ),
        (
            ["optimizer=adamw_8bit", "strategy=zero2"],
            "optimizer.name=adamw_8bit must go with strategy=single, ddp or fsdp2, got zero2, which cuts moments "
            "anywhere. Choose strategy=fsdp2, which divides as much, or optimizer=adamw.",
        ),
        (
            ["optimizer=adamw_8bit", "strategy=fsdp2", "strategy.offload=true"],
            "optimizer.name=adamw_8bit must keep moments on the device, got strategy.offload=true. "
            "Set strategy.offload=false, or optimizer=adamw.",
        ),
        (
            ["train.matmul=fp8", "train.precision=fp32"],
            "train.matmul=fp8 must go with train.precision=bf16, got fp32. Set one of them otherwise.",
        ),
        (
            ["train.matmul=fp8", "strategy=zero1"],
            "train.matmul=fp8 must go with strategy=single, ddp or fsdp2, got zero1, under which nobody has tried it. "
            "Choose strategy=fsdp2, or train.matmul=bf16.",
        ),
        (
            ["train.compile=true", "strategy=zero3_offload"],
            "train.compile must be false with strategy=zero3_offload, got true: DeepSpeed gathers weights inside of "
            "what would be compiled. Choose strategy=fsdp2, or train.compile=false.",
        ),
        (
            ["train.compile=true", "train.recompute=selective"],
            "train.compile must be false with train.recompute=selective, got true: it cannot see the products in "
            "compiled code. Choose train.recompute=full, or train.compile=false.",
        ),
    ],
)
def test_what_does_not_go_with_an_optimizer_or_compiled_layers(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(["recipe=xnli", *words])
    assert caught.value.faults == (message,)


def test_check_raises_all_faults_together(recipe: Callable[[], Config]) -> None:
    config = put(put(recipe(), "seed", -1), "task.max_length", 7)
    with pytest.raises(ConfigError) as caught:
        check(config)
    assert caught.value.faults == ("seed must be 0 or more, got -1.", "task.max_length must be at least 8, got 7.")
    check(recipe())


def test_faults_of_retrieval() -> None:
    config = load_config(["recipe=tatoeba"])
    config.train.languages, config.dataset.columns = ["ara"], {"text": "a", "label": "b"}
    assert faults_of(config) == [
        "train.languages must be empty, since retrieval trains nothing, got ara. Set train.languages=[].",
        "dataset.columns has no role 'label'. Its roles are text, text_pair.",
        "dataset.columns must name a column for text_pair, got {'text': 'a', 'label': 'b'}. Add text_pair: <column>.",
    ]
    config = load_config(["recipe=bucc"])
    config.train.shots = 3
    wanted = "mixture and train.shots are for training, and retrieval trains nothing. Leave them out."
    assert faults_of(config) == [wanted]
    config.train.shots = 0
    config.dataset.columns = {"text": "a", "gold": "b"}
    assert faults_of(config) == [
        "dataset.columns must name a column for side, got {'text': 'a', 'gold': 'b'}. Add side: <column>."
    ]
