"""Kinds of problems, one file each."""

from xlmrxl_train.config import DatasetConfig, TaskConfig
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.tasks.causal_language_modelling import CausalLanguageModelling
from xlmrxl_train.tasks.masked_language_modelling import MaskedLanguageModelling
from xlmrxl_train.tasks.multiple_choice import MultipleChoice
from xlmrxl_train.tasks.question_answering import QuestionAnswering
from xlmrxl_train.tasks.retrieval import Retrieval
from xlmrxl_train.tasks.sequence_classification import SequenceClassification
from xlmrxl_train.tasks.task import Prediction, Task
from xlmrxl_train.tasks.token_classification import TokenClassification
from xlmrxl_train.tasks.translation import Translation

TASKS: dict[str, type[Task]] = {
    "sequence_classification": SequenceClassification,
    "masked_language_modelling": MaskedLanguageModelling,
    "causal_language_modelling": CausalLanguageModelling,
    "question_answering": QuestionAnswering,
    "token_classification": TokenClassification,
    "retrieval": Retrieval,
    "multiple_choice": MultipleChoice,
    "translation": Translation,
}

__all__ = ["TASKS", "Prediction", "Task", "make_task"]


def make_task(config: TaskConfig, dataset: DatasetConfig, tokenizer: Tokenizer) -> Task:
    """Return the task that `config.kind` names."""
    return TASKS[config.kind](config, dataset, tokenizer)
