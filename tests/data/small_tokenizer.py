"""A tokenizer that a test can make in no time."""

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram


def small_backend(words: str = "hello world how are you fine thanks") -> Tokenizer:
    """A tokenizer of a few pieces, laid out as XLM-R's."""
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz,.!?▁") | set(words) - {" "})
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *("▁" + word for word in words.split()), *letters, "<mask>"]
    scores = [0.0] * 4 + [-2.0] * len(words.split()) + [-6.0] * len(letters) + [0.0]
    backend = Tokenizer(Unigram(list(zip(pieces, scores, strict=True)), unk_id=3, byte_fallback=False))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    backend.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in ("<s>", "<pad>", "</s>", "<unk>")]
        + [AddedToken("<mask>", normalized=False, special=True, lstrip=True)]
    )
    return backend
