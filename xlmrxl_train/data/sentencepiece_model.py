"""XLM-R's own vocabulary file, sentencepiece.bpe.model, becomes a tokenizer of the `tokenizers` library."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from xlmrxl_train.errors import ConfigError

# fairseq put four entries before SentencePiece's pieces, which begin with <unk>, <s>, </s>; hence the shift by one.
FIRST_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]
LAST_TOKEN = "<mask>"
_FIRST_PIECES = ["<unk>", "<s>", "</s>"]
_UNIGRAM = 1
_CONTROL, _USER_DEFINED = 3, 4


def read_sentencepiece(file: Path) -> Tokenizer:
    """Read a SentencePiece unigram model and lay its ids out as XLM-R does.

    Source: transformers `convert_slow_tokenizer.py`, XLMRobertaConverter; fairseq `examples/xlmr/README.md`.

    Raises:
        ConfigError: The file is not a SentencePiece model, or one of another kind.
    """
    from sentencepiece import sentencepiece_model_pb2

    protocol: Any = sentencepiece_model_pb2  # its classes are made when it is imported
    model = protocol.ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except Exception as error:  # protobuf has several implementations, each with its own error
        raise ConfigError(
            f"tokenizer.path must be a readable SentencePiece model, got {file} ({error}). Fetch it again."
        ) from error
    first = [piece.piece for piece in model.pieces[:3]]
    if model.trainer_spec.model_type != _UNIGRAM or first != _FIRST_PIECES:
        raise ConfigError(
            f"tokenizer.path must be a SentencePiece unigram model that begins with {', '.join(_FIRST_PIECES)}, as "
            f"XLM-R's does, got {file}, which begins with {', '.join(first) or 'nothing'}. Use tokenizer.json instead."
        )
    pieces = model.pieces[3:]
    vocabulary = [(token, 0.0) for token in FIRST_TOKENS]
    vocabulary += [(piece.piece, piece.score) for piece in pieces]
    vocabulary += [(LAST_TOKEN, 0.0)]
    special = [AddedToken(token, normalized=False, special=True) for token in FIRST_TOKENS]
    special += [AddedToken(p.piece, normalized=False, special=True) for p in pieces if p.type == _CONTROL]
    special += [AddedToken(LAST_TOKEN, normalized=False, special=True, lstrip=True)]

    tokenizer = Tokenizer(Unigram(vocabulary, unk_id=FIRST_TOKENS.index("<unk>"), byte_fallback=False))
    tokenizer.add_tokens([AddedToken(p.piece, normalized=False) for p in pieces if p.type == _USER_DEFINED])
    tokenizer.add_special_tokens(special)
    if model.normalizer_spec.precompiled_charsmap:
        try:
            tokenizer.normalizer = normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)
        except Exception as error:  # the library's only class
            raise ConfigError(
                f"tokenizer.path must be a readable SentencePiece model, got {file} ({error}). Fetch it again."
            ) from error
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer
