"""Text becomes token ids, as XLM-R was trained on: the `tokenizers` library behind the Hub's calling manners."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tokenizers import Tokenizer as Backend

from xlmrxl_train import hub
from xlmrxl_train.data.sentencepiece_model import FIRST_TOKENS, LAST_TOKEN, read_sentencepiece
from xlmrxl_train.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding

# A pair is <s> A </s></s> B </s>.
_SMALLEST = 6  # the special tokens and one more
_NUM_SPECIAL_TOKENS, _NUM_SPECIAL_TOKENS_OF_PAIR = 2, 4


class TokenizerOutput(dict[str, Any]):
    """What a call returns: a dictionary whose entries are attributes too, so that `model(**output)` works."""

    def __getattr__(self, name: str) -> Any:
        """Return an entry."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{name} is not part of this output; it has {', '.join(self)}") from None

    def to(self, device: "str | torch.device") -> Self:
        """Move its tensors to a device."""
        for name, value in self.items():
            if hasattr(value, "to"):
                self[name] = value.to(device)
        return self


class Tokenizer:
    """XLM-R's vocabulary, or a smaller one with the same layout: <s> 0, <pad> 1, </s> 2, <unk> 3, and <mask>."""

    bos_token, pad_token, eos_token, unk_token = FIRST_TOKENS
    bos_token_id, pad_token_id, eos_token_id, unk_token_id = range(4)
    cls_token, cls_token_id = bos_token, bos_token_id
    sep_token, sep_token_id = eos_token, eos_token_id
    mask_token = LAST_TOKEN

    def __init__(self, backend: Backend, origin: str = "this tokenizer") -> None:
        """Take over a tokenizer of the `tokenizers` library.

        Args:
            backend: Its truncation and padding settings are dropped.
            origin: The file that it was read from, for messages.

        Raises:
            ConfigError: Its special tokens are not XLM-R's.
        """
        backend.no_padding()
        backend.no_truncation()
        _check_layout(backend, origin)
        self._backend = backend
        mask_token_id = backend.token_to_id(self.mask_token)
        assert mask_token_id is not None
        self.mask_token_id: int = mask_token_id

    @classmethod
    def from_path(cls, path: str | Path, revision: str | None = None, *, key: str = "tokenizer.path") -> "Tokenizer":
        """Read tokenizer.json (also .gz) or sentencepiece.bpe.model.

        Args:
            path: The file, a folder that has one, or an id on the Hub.
            revision: Commit or tag on the Hub.
            key: The setting that named it.

        Raises:
            ConfigError: There is none, it cannot be read, or it is not laid out as XLM-R's.
        """
        file = hub.resolve_tokenizer(str(path), revision, key=key)
        backend = read_sentencepiece(file) if file.suffix == ".model" else _read_json(file)
        return cls(backend, str(file))

    from_pretrained = from_path

    def __len__(self) -> int:
        """Return the number of tokens; the embedding may have more rows."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary and all rules, the same for the same content in any kind of file."""
        rules = json.loads(self._backend.to_str())
        rules.update(truncation=None, padding=None)  # those of the last call
        content = json.dumps(rules, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        truncation: bool | str = False,
        padding: bool | str = False,
        return_tensors: str | None = None,
        return_offsets_mapping: bool = False,
        return_attention_mask: bool = True,
    ) -> TokenizerOutput:
        """Encode a text or several, with special tokens.

        Args:
            text: One text, or a list of them.
            text_pair: The second text of each.
            max_length: Tokens, special ones included.
            truncation: Whether to cut to max_length, the longer text of a pair first ("longest_first").
            padding: True or "longest": to the longest; "max_length": to max_length; on the right.
            return_tensors: "pt" for tensors, with a batch dimension also for one text.
            return_offsets_mapping: Whether to add `offset_mapping`: begin and end in the text's characters.
            return_attention_mask: Whether to add `attention_mask`: 1 for tokens, 0 for padding.

        Raises:
            ValueError: The arguments do not fit together.
        """
        single = isinstance(text, str)
        texts = [text] if isinstance(text, str) else list(text)
        pairs = [text_pair] if isinstance(text_pair, str) else None if text_pair is None else list(text_pair)
        if truncation not in (True, False, "longest_first", "do_not_truncate"):
            raise ValueError(f"truncation must be True, False or 'longest_first', got {truncation!r}.")
        cut = truncation in (True, "longest_first")
        if (cut or padding == "max_length") and max_length is None:
            raise ValueError("max_length must be given with truncation or padding='max_length', got None.")
        encodings = self._encode(texts, pairs, max_length if cut else None, offsets=return_offsets_mapping)
        output = self._output(encodings, self._target_length(encodings, padding, max_length))
        if not return_offsets_mapping:
            del output["offset_mapping"]
        if not return_attention_mask:
            del output["attention_mask"]
        if return_tensors is not None:
            return _as_tensors(output, return_tensors)
        return TokenizerOutput({name: rows[0] for name, rows in output.items()}) if single else output

    def encode(self, text: str, text_pair: str | None = None, *, max_length: int | None = None) -> list[int]:
        """Return the ids of one text or pair, special tokens included, cut to max_length tokens."""
        return self.encode_batch([text], None if text_pair is None else [text_pair], max_length)[0]

    def encode_batch(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int | None = None
    ) -> list[list[int]]:
        """Return the ids of many texts or pairs, special tokens included, on all cores.

        Args:
            texts: The first text of each.
            pairs: The second text of each.
            max_length: Tokens; longer ones are cut, the longer text of a pair first. None: nothing is cut.
        """
        return [encoding.ids for encoding in self._encode(texts, pairs, max_length, offsets=False)]

    def decode(self, ids: "int | Sequence[int] | torch.Tensor", skip_special_tokens: bool = False) -> str:
        """Return the text of one sequence of ids; ids beyond the vocabulary are left out."""
        listed = _as_list(ids)
        return self._backend.decode(
            [listed] if isinstance(listed, int) else listed, skip_special_tokens=skip_special_tokens
        )

    def batch_decode(
        self, sequences: "Sequence[Sequence[int]] | torch.Tensor", skip_special_tokens: bool = False
    ) -> list[str]:
        """Return the text of each sequence of ids."""
        return self._backend.decode_batch(
            [list(_as_list(sequence)) for sequence in sequences], skip_special_tokens=skip_special_tokens
        )

    def convert_ids_to_tokens(self, ids: "int | Sequence[int] | torch.Tensor") -> Any:
        """Return the token of an id, or of each; None for an id beyond the vocabulary."""
        listed = _as_list(ids)
        if isinstance(listed, int):
            return self._backend.id_to_token(listed)
        return [self._backend.id_to_token(id_) for id_ in listed]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """Return the id of a token, or of each; that of <unk> for a token that is not in the vocabulary."""
        if isinstance(tokens, str):
            id_ = self._backend.token_to_id(tokens)
            return self.unk_token_id if id_ is None else id_
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Return the text that tokens make."""
        return str(self._backend.decoder.decode(list(tokens)))

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and the two small files with which transformers' AutoTokenizer reads it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._backend.no_truncation()
        (folder / "tokenizer.json").write_text(self._backend.to_str(), encoding="utf-8")
        special = {
            f"{name}_token": getattr(self, f"{name}_token") for name in ("bos", "eos", "unk", "sep", "pad", "cls")
        }
        mask = {
            "content": self.mask_token,
            "lstrip": True,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
        }
        config = {**special, "mask_token": self.mask_token, "model_max_length": 512}
        config["tokenizer_class"] = _class_in_transformers(json.loads(self._backend.to_str()))
        for name, content in (
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", {**special, "mask_token": mask}),
        ):
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int | None, *, offsets: bool
    ) -> "list[Encoding]":
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"text_pair must have one text per text ({len(texts)}), got {len(pairs)}.")
        self._set_truncation(max_length, _NUM_SPECIAL_TOKENS if pairs is None else _NUM_SPECIAL_TOKENS_OF_PAIR)
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        encode = self._backend.encode_batch if offsets else self._backend.encode_batch_fast
        return encode(inputs, add_special_tokens=True)

    def _set_truncation(self, max_length: int | None, num_special_tokens: int) -> None:
        current = self._backend.truncation
        if max_length is None:
            if current is not None:
                self._backend.no_truncation()
            return
        if max_length < num_special_tokens:
            raise ValueError(f"max_length must hold {num_special_tokens} special tokens, got {max_length}.")
        if current is None or current["max_length"] != max_length:
            self._backend.enable_truncation(max_length, strategy="longest_first")

    def _target_length(self, encodings: "Sequence[Encoding]", padding: bool | str, max_length: int | None) -> int:
        if padding in (False, "do_not_pad"):
            return 0
        if padding == "max_length":
            assert max_length is not None
            return max_length
        if padding in (True, "longest"):
            return max(map(len, encodings), default=0)
        raise ValueError(f"padding must be True, False, 'longest' or 'max_length', got {padding!r}.")

    def _output(self, encodings: "Sequence[Encoding]", length: int) -> TokenizerOutput:
        output = TokenizerOutput(input_ids=[], attention_mask=[], offset_mapping=[])
        for encoding in encodings:
            missing = max(0, length - len(encoding))
            output["input_ids"].append(encoding.ids + missing * [self.pad_token_id])
            output["attention_mask"].append(len(encoding) * [1] + missing * [0])
            output["offset_mapping"].append(encoding.offsets + missing * [(0, 0)])
        return output


def _class_in_transformers(rules: dict[str, Any]) -> str:
    """Return the class that reads these rules as they are.

    transformers 5 keeps only the vocabulary and the character map of an XLMRobertaTokenizer's file and makes up the
    rest, so a tokenizer with other rules must not be called one.
    """
    normalizer, splitter = rules["normalizer"] or {}, rules["pre_tokenizer"] or {}
    normalizers = [step["type"] for step in normalizer.get("normalizers", [normalizer]) if step]
    splitters = [step["type"] for step in splitter.get("pretokenizers", [])]
    own = normalizers in ([], ["Precompiled"]) and splitters == ["WhitespaceSplit", "Metaspace"]
    return "XLMRobertaTokenizer" if own else "PreTrainedTokenizerFast"


def _as_tensors(output: TokenizerOutput, kind: str) -> TokenizerOutput:
    import torch

    if kind != "pt":
        raise ValueError(f"return_tensors must be 'pt' or None, got {kind!r}.")
    if len({len(row) for row in output["input_ids"]}) > 1:
        raise ValueError("return_tensors='pt' needs rows of one length, got several. Pass padding=True.")
    return TokenizerOutput({name: torch.tensor(rows, dtype=torch.int64) for name, rows in output.items()})


def _as_list(ids: Any) -> Any:
    return ids.tolist() if hasattr(ids, "tolist") else ids


def _read_json(file: Path) -> Backend:
    try:
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
        text = content.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ConfigError(
            f"tokenizer.path must be a readable tokenizer.json, got {file} ({error}). Fetch it again."
        ) from error
    try:
        return Backend.from_str(text)
    except BaseException as error:  # the library raises plain Exception for a fault of a file, or panics
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ConfigError(
            f"tokenizer.path must be a tokenizer.json of the tokenizers library, got {file} ({error}). "
            "Name another file."
        ) from error


def _check_layout(backend: Backend, origin: str) -> None:
    for id_, token in enumerate(FIRST_TOKENS):
        if (found := backend.token_to_id(token)) != id_:
            raise ConfigError(
                f"tokenizer.path must have {token} as id {id_}, as XLM-R's has, got "
                f"{'no such token' if found is None else f'id {found}'} in {origin}. Use an XLM-R tokenizer."
            )
    if backend.token_to_id(LAST_TOKEN) is None:
        raise ConfigError(
            f"tokenizer.path must have a token {LAST_TOKEN}, got none in {origin}. Use an XLM-R tokenizer."
        )
    try:
        single, pair = backend.encode("").ids, backend.encode("", "").ids
        backend.encode("a 1 ü 中 \U0001f600")
    except BaseException as error:  # the library panics, which is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ConfigError(
            f"tokenizer.path must be a tokenizer that can encode a text, got {origin} ({str(error)[:160]}). "
            "Use an XLM-R tokenizer."
        ) from error
    if single != [0, 2] or pair != [0, 2, 2, 2]:
        raise ConfigError(
            "tokenizer.path must put <s> A </s> around a text and <s> A </s></s> B </s> around a pair, "
            f"got {backend.decode(single, skip_special_tokens=False) or 'nothing'} around an empty text and "
            f"{backend.decode(pair, skip_special_tokens=False) or 'nothing'} around an empty pair in {origin}. "
            "Use an XLM-R tokenizer."
        )
    vocabulary = backend.get_vocab(with_added_tokens=True)
    if len(vocabulary) < _SMALLEST or max(vocabulary.values()) != len(vocabulary) - 1:
        raise ConfigError(
            f"tokenizer.path must have at least {_SMALLEST} tokens and number them without gaps, got "
            f"{len(vocabulary):,} tokens with ids up to {max(vocabulary.values()):,} in {origin}. "
            "Use an XLM-R tokenizer."
        )
