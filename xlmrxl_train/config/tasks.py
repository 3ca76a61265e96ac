"""The kinds of problem."""

from dataclasses import dataclass

from xlmrxl_train.config.keys import key


@dataclass(kw_only=True, slots=True)
class TaskConfig:
    """The kind of problem; each kind has its own class below."""

    kind: str = key("", "set by the choice of task")
    max_length: int = key(512, "tokens per sequence, special ones included; longer texts are truncated")


@dataclass(kw_only=True, slots=True)
class SequenceClassificationConfig(TaskConfig):
    """One label, several labels, or a number for a text or a pair of texts."""

    kind: str = key("sequence_classification", "set by the choice of task")
    problem_type: str = key(
        "single_label_classification",
        "single_label_classification | multi_label_classification | regression, the Hub's names; of several labels "
        "those with a logit above 0 are predicted; numbers are learnt as they are written, so scale large ones before",
    )
    class_weights: list[float] = key([], "one weight per class in the loss; empty: all 1")


@dataclass(kw_only=True, slots=True)
class MultipleChoiceConfig(TaskConfig):
    """Which of a few choices answers a question about a context; of a text too long the context is cut."""

    kind: str = key("multiple_choice", "set by the choice of task")


@dataclass(kw_only=True, slots=True)
class TokenClassificationConfig(TaskConfig):
    """One label for every word of a sentence."""

    kind: str = key("token_classification", "set by the choice of task")
    long: str = key(
        "split",
        "split | truncate; split: a sentence of more than max_length - 3 sub-words becomes several sequences, whose "
        "tags are joined again; truncate: words beyond the first of them are not read and count as predicted O",
    )


@dataclass(kw_only=True, slots=True)
class LanguageModellingConfig(TaskConfig):
    """What the two kinds of language modelling have in common."""

    join: str = key(
        "none",
        "none | lines | documents; none: a row is a sequence, cut at max_length; lines: consecutive rows are joined "
        "into sequences of up to max_length, a blank row ends a document; documents: the lines of rows are, each row "
        "being a document",
    )


@dataclass(kw_only=True, slots=True)
class MaskedLanguageModellingConfig(LanguageModellingConfig):
    """Predict hidden tokens of a text, or of a sentence and its translation (the role text_pair) in one sequence."""

    kind: str = key("masked_language_modelling", "set by the choice of task")
    mask_probability: float = key(0.15, "share of tokens to predict; of these 80 % are masked, 10 % random, 10 % kept")
    whole_word: bool = key(False, "predict all pieces of a word or none; in scripts without spaces a piece is a word")


@dataclass(kw_only=True, slots=True)
class CausalLanguageModellingConfig(LanguageModellingConfig):
    """Predict each token of a text from those before it."""

    kind: str = key("causal_language_modelling", "set by the choice of task")


@dataclass(kw_only=True, slots=True)
class QuestionAnsweringConfig(TaskConfig):
    """Find the answer to a question in a text, as a span of its tokens."""

    kind: str = key("question_answering", "set by the choice of task")
    max_length: int = key(
        384, "tokens of a window: question, a part of the context, special ones; questions stay whole"
    )
    stride: int = key(128, "tokens of the context from the start of a window to the start of the next one")
    n_best: int = key(20, "starts, and ends, of a window that are paired; answers whose probabilities add up to 1")
    max_answer_length: int = key(30, "tokens of the longest answer that is predicted")


@dataclass(kw_only=True, slots=True)
class TranslationConfig(TaskConfig):
    """Translate a text: an encoder reads it, a decoder of the same shape writes."""

    kind: str = key("translation", "set by the choice of task")
    max_length: int = key(512, "tokens of a source, special ones included; longer texts are truncated")
    max_target_length: int = key(
        128, "tokens of a translation, special ones included; longer ones are truncated, and none longer is generated"
    )


@dataclass(kw_only=True, slots=True)
class RetrievalConfig(TaskConfig):
    """Find translations by the nearness of sentence vectors; nothing is trained."""

    kind: str = key("retrieval", "set by the choice of task")
    layer: int | None = key(
        None, "whose states make the vectors, as the Hub's hidden_states; null: 7/12 of the way up, 21 of XL's 36"
    )
    pooling: str = key("mean", "mean | first; mean: of all tokens, special ones included; first: of <s>")
    neighbours: int = key(4, "mining: sentences on each side that a pair's cosine is measured against")


def lengths_of(task: TaskConfig) -> dict[str, int]:
    """Return the keys that say how many tokens a sequence may have, with their values."""
    lengths = {"task.max_length": task.max_length}
    if isinstance(task, TranslationConfig):
        lengths["task.max_target_length"] = task.max_target_length
    return lengths


# What a choice of this group selects.
TASK_CLASSES: dict[str, type] = {
    "sequence_classification": SequenceClassificationConfig,
    "masked_language_modelling": MaskedLanguageModellingConfig,
    "causal_language_modelling": CausalLanguageModellingConfig,
    "question_answering": QuestionAnsweringConfig,
    "token_classification": TokenClassificationConfig,
    "retrieval": RetrievalConfig,
    "multiple_choice": MultipleChoiceConfig,
    "translation": TranslationConfig,
}
