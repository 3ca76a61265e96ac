"""XLM-RoBERTa-XL in pure PyTorch: packed tokens inside, the Hub's calls, names and files outside."""

from xlmrxl_train.model.base import XLMRobertaXLModel
from xlmrxl_train.model.cache import KeyValueCache
from xlmrxl_train.model.configuration import XLMRobertaXLConfig
from xlmrxl_train.model.encoder import XLMRobertaXLLayer
from xlmrxl_train.model.encoder_decoder import XLMRobertaXLEncoderDecoder
from xlmrxl_train.model.fairseq import convert_fairseq
from xlmrxl_train.model.language_models import XLMRobertaXLForCausalLM, XLMRobertaXLForMaskedLM
from xlmrxl_train.model.outputs import ModelOutput
from xlmrxl_train.model.packed import PackedSequences
from xlmrxl_train.model.prepacking import prepacked
from xlmrxl_train.model.pretrained import PreTrained
from xlmrxl_train.model.quantization import QuantizationConfig
from xlmrxl_train.model.sentence_encoder import XLMRobertaXLSentenceEncoder
from xlmrxl_train.model.tasks import (
    XLMRobertaXLForMultipleChoice,
    XLMRobertaXLForQuestionAnswering,
    XLMRobertaXLForSequenceClassification,
    XLMRobertaXLForTokenClassification,
)
from xlmrxl_train.model.weights import LoadReport

__all__ = [
    "KeyValueCache",
    "LoadReport",
    "ModelOutput",
    "PackedSequences",
    "PreTrained",
    "QuantizationConfig",
    "XLMRobertaXLConfig",
    "XLMRobertaXLEncoderDecoder",
    "XLMRobertaXLForCausalLM",
    "XLMRobertaXLForMaskedLM",
    "XLMRobertaXLForMultipleChoice",
    "XLMRobertaXLForQuestionAnswering",
    "XLMRobertaXLForSequenceClassification",
    "XLMRobertaXLForTokenClassification",
    "XLMRobertaXLLayer",
    "XLMRobertaXLModel",
    "XLMRobertaXLSentenceEncoder",
    "convert_fairseq",
    "prepacked",
]
