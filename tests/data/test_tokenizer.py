"""The tokenizer against golden encodings, transformers and sentencepiece."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer as Backend
from tokenizers import processors
from tokenizers.models import Unigram

from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import ConfigError

TEXTS = ["hello world", "how are you, world?", "a\tb   c <mask> d", "", "ﬁne thanks １２", "hello " * 30]


@pytest.fixture(scope="module")
def small(tokenizer_file: Path) -> Tokenizer:
    return Tokenizer.from_path(tokenizer_file)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Tokenizer:
    return Tokenizer.from_path(shared_data / "tokenizer" / "xlmr" / "tokenizer.json.gz")


def test_golden_encodings(real: Tokenizer, shared_data: Path) -> None:
    golden = json.loads((shared_data / "tokenizer" / "xlmr" / "golden_ids.json").read_text())
    assert len(golden["examples"]) == 5
    for example in golden["examples"]:
        expected = str(example["ids"])
        if "<unk>" in example["text"]:  # as text in fairseq, as the special token on the Hub
            expected = expected.replace("4426, 3678, 2740", "3, 6")
        assert str(real(example["text"]).input_ids) == expected
    assert real.encode("Hello world!") == [0, 35378, 8999, 38, 2]
    assert real.encode("你好，世界") == [0, 6, 124084, 4, 3221, 2]
    assert real.encode("नमस्ते दुनिया") == [0, 68700, 97883, 29405, 2]
    assert real.encode("Bonjour le monde") == [0, 84602, 95, 11146, 2]
    assert (len(real), real.mask_token_id) == (250002, 250001)
    assert real.decode(real.encode("Hello <mask> world!"), skip_special_tokens=True) == "Hello world!"


def test_ids_and_names(small: Tokenizer) -> None:
    ids = [small.bos_token_id, small.pad_token_id, small.eos_token_id, small.unk_token_id]
    assert ids == [0, 1, 2, 3] == small.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"])
    assert small.mask_token_id == len(small) - 1 == small.convert_tokens_to_ids(small.mask_token)
    assert small.convert_tokens_to_ids("nowhere") == small.unk_token_id
    assert small.convert_ids_to_tokens([0, 4, 10**6]) == ["<s>", "▁hello", None]
    assert small.convert_ids_to_tokens(4) == "▁hello"
    assert small.decode(torch.tensor([0, 4, 5, 2])) == "<s> hello world</s>"
    assert small.decode(4) == "hello"
    assert small.batch_decode(torch.tensor([[0, 4, 2], [0, 5, 2]]), skip_special_tokens=True) == ["hello", "world"]


def test_same_as_transformers_after_saving(small: Tokenizer, tmp_path: Path) -> None:
    small.encode_batch(["hello"], max_length=3)  # truncation of a call is not saved
    small.save(tmp_path)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(peer) == len(small) and peer.mask_token_id == small.mask_token_id
    same_calls(small, peer)
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta-xl"}')
    same_calls(small, transformers.AutoTokenizer.from_pretrained(tmp_path))
    assert Tokenizer.from_path(tmp_path).fingerprint == small.fingerprint


def test_xlm_rs_own_rules_in_transformers(shared_data: Path, tmp_path: Path) -> None:
    ours = Tokenizer.from_path(shared_data / "tokenizer" / "sentencepiece_fixture" / "test_model.model")
    ours.save(tmp_path)
    for kind in (transformers.AutoTokenizer, transformers.XLMRobertaTokenizerFast):
        peer = kind.from_pretrained(tmp_path)
        assert type(peer) is transformers.XLMRobertaTokenizerFast
        same_calls(ours, peer)


def same_calls(ours: Tokenizer, peer: Callable[..., dict[str, object]]) -> None:
    for text in TEXTS:
        assert ours(text).input_ids == peer(text)["input_ids"]
        assert ours.decode(ours(text).input_ids) == peer.decode(peer(text)["input_ids"])  # type: ignore[attr-defined]
    pairs = list(reversed(TEXTS))
    for length in (4, 5, 7, 8, 20, 100):
        expected = peer(TEXTS, pairs, truncation=True, max_length=length)
        assert ours(TEXTS, pairs, truncation=True, max_length=length).input_ids == expected["input_ids"]
        assert ours.encode_batch(TEXTS, pairs, length) == expected["input_ids"]
        cut = peer(TEXTS, truncation=True, max_length=length)["input_ids"]
        assert ours.encode_batch(TEXTS, max_length=length) == cut
    for padding in (True, "longest", "max_length"):
        arguments = {"padding": padding, "truncation": True, "max_length": 16, "return_tensors": "pt"}
        expected, found = peer(TEXTS, pairs, **arguments), ours(TEXTS, pairs, **arguments)
        assert torch.equal(found.input_ids, expected["input_ids"])
        assert torch.equal(found["attention_mask"], expected["attention_mask"])
    arguments = {"return_offsets_mapping": True, "padding": True}
    assert ours(TEXTS, pairs, **arguments) == dict(peer(TEXTS, pairs, **arguments))
    assert torch.equal(ours("hello", return_tensors="pt").input_ids, peer("hello", return_tensors="pt")["input_ids"])


@pytest.mark.slow
def test_real_vocabulary_in_transformers(real: Tokenizer, tmp_path: Path) -> None:
    real.save(tmp_path)
    for kind in (transformers.AutoTokenizer, transformers.XLMRobertaTokenizerFast):
        same_calls(real, kind.from_pretrained(tmp_path))


@given(
    words=st.integers(0, 20),
    others=st.integers(0, 20),
    length=st.integers(4, 30),
)
def test_truncation_keeps_special_tokens(words: int, others: int, length: int) -> None:
    tokenizer = _SMALL()
    ids = tokenizer.encode("hello " * words, "world " * others, max_length=length)
    assert len(ids) == min(length, words + others + 4)
    assert ids[0] == 0 and ids[-1] == 2 and ids.count(2) == 3 and ids.count(0) == 1


def _SMALL(made: list[Tokenizer] = []) -> Tokenizer:  # noqa: B006
    from small_tokenizer import small_backend

    if not made:
        made.append(Tokenizer(small_backend()))
    return made[0]


def test_output_is_a_dictionary_with_attributes(small: Tokenizer) -> None:
    output = small(["hello", "world you"], padding=True, return_tensors="pt")
    assert output.to("cpu") is output and set(output) == {"input_ids", "attention_mask"}
    assert output.input_ids.tolist() == [[0, 4, 2, 1], [0, 5, 8, 2]]
    assert "attention_mask" not in small("hello", return_attention_mask=False)
    with pytest.raises(AttributeError, match="offset_mapping is not part of this output; it has input_ids"):
        _ = output.offset_mapping


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truncation": True}, "max_length must be given with truncation or padding='max_length', got None."),
        ({"padding": "max_length"}, "max_length must be given with truncation or padding='max_length', got None."),
        ({"truncation": "only_first"}, "truncation must be True, False or 'longest_first', got 'only_first'."),
        ({"truncation": True, "max_length": 1}, "max_length must hold 2 special tokens, got 1."),
        ({"text_pair": ["a", "b", "c"]}, "text_pair must have one text per text (2), got 3."),
        (
            {"text_pair": ["a", "b"], "truncation": True, "max_length": 3},
            "max_length must hold 4 special tokens, got 3.",
        ),
        ({"padding": "left"}, "padding must be True, False, 'longest' or 'max_length', got 'left'."),
        ({"return_tensors": "np"}, "return_tensors must be 'pt' or None, got 'np'."),
        ({"return_tensors": "pt"}, "return_tensors='pt' needs rows of one length, got several. Pass padding=True."),
    ],
)
def test_wrong_arguments(small: Tokenizer, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        small(["hello", "hello world"], **arguments)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_fingerprint_follows_content(tokenizer_file: Path, tmp_path: Path) -> None:
    from small_tokenizer import small_backend

    packed = tmp_path / "tokenizer.json.gz"
    packed.write_bytes(gzip.compress(tokenizer_file.read_bytes()))
    first, same = Tokenizer.from_path(tokenizer_file), Tokenizer.from_pretrained(str(packed))
    same.encode_batch(["hello"], max_length=5)
    other = Tokenizer(small_backend("hello world how are you fine thank"))
    assert first.fingerprint == same.fingerprint != other.fingerprint
    assert len(first.fingerprint) == 64


def test_sentencepiece_model(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "tokenizer" / "sentencepiece_fixture"
    (tmp_path / "sentencepiece.bpe.model").write_bytes((source / "test_model.model").read_bytes())
    ours = Tokenizer.from_path(tmp_path)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(source / "test_model.model"))
    assert len(ours) == theirs.get_piece_size() + 2
    assert ours.mask_token_id == len(ours) - 1
    lines = (source / "botchan.txt").read_text(encoding="utf-8").splitlines()[:300]
    lines += ["ﬁne　thing", "  two  spaces ", "日本語", "１２３"]
    shifted = [[0, *(id_ + 1 if id_ else 3 for id_ in ids), 2] for ids in theirs.encode(lines)]
    assert ours.encode_batch(lines) == shifted


def test_a_vocabulary_of_another_kind_is_refused(shared_data: Path, tmp_path: Path) -> None:
    t5 = shared_data / "tokenizer" / "nmt_nfkc" / "sentencepiece.model"
    with pytest.raises(ConfigError) as caught:
        Tokenizer.from_path(t5)
    assert str(caught.value) == (
        "tokenizer.path must be a SentencePiece unigram model that begins with <unk>, <s>, </s>, as XLM-R's does, "
        f"got {t5}, which begins with <pad>, </s>, <unk>. Use tokenizer.json instead."
    )
    broken = tmp_path / "sentencepiece.bpe.model"
    broken.write_bytes(b"\xff\xff\xff")
    with pytest.raises(ConfigError, match=r"^tokenizer\.path must be a readable SentencePiece model, got "):
        Tokenizer.from_path(broken)
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((shared_data / "tokenizer" / "sentencepiece_fixture" / "test_model.model").read_bytes())
    model.normalizer_spec.precompiled_charsmap = b"\xff\xff\xff\xff"
    broken.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match=r"^tokenizer\.path must be a readable SentencePiece model, got "):
        Tokenizer.from_path(broken)
    broken.write_bytes(b"")
    with pytest.raises(ConfigError, match="which begins with nothing"):
        Tokenizer.from_path(broken)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", b"{", "must be a tokenizer.json of the tokenizers library, got "),
        ("tokenizer.json", b"{}", "must be a tokenizer.json of the tokenizers library, got "),
        ("tokenizer.json", b"\xff\xfe", "must be a readable tokenizer.json, got "),
        ("tokenizer.json.gz", b"not gzip", "must be a readable tokenizer.json, got "),
        ("tokenizer.json.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "must be a readable tokenizer.json, got "),
    ],
)
def test_not_a_tokenizer(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Tokenizer.from_path(tmp_path)
    assert str(caught.value).startswith(f"tokenizer.path {message}{tmp_path / name} (")


def test_other_special_tokens(tmp_path: Path) -> None:
    def saved(tokens: list[str], template: bool = True) -> Path:
        backend = Backend(Unigram([(token, 0.0) for token in tokens], unk_id=0, byte_fallback=False))
        if template:
            ids = {token: tokens.index(token) for token in ("<s>", "</s>") if token in tokens}
            backend.post_processor = processors.TemplateProcessing(
                single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=list(ids.items())
            )
        backend.save(str(tmp_path / "tokenizer.json"))
        return tmp_path / "tokenizer.json"

    def message(file: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            Tokenizer.from_path(file)
        return str(caught.value)

    end = f"in {tmp_path / 'tokenizer.json'}. Use an XLM-R tokenizer."
    file = saved(["<s>", "</s>", "<pad>", "<unk>", "<mask>"])
    assert message(file) == f"tokenizer.path must have <pad> as id 1, as XLM-R's has, got id 2 {end}"
    file = saved(["a", "b"], template=False)
    assert message(file) == f"tokenizer.path must have <s> as id 0, as XLM-R's has, got no such token {end}"
    file = saved(["<s>", "<pad>", "</s>", "<unk>"])
    assert message(file) == f"tokenizer.path must have a token <mask>, got none {end}"
    file = saved(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    assert message(file) == (
        "tokenizer.path must put <s> A </s> around a text and <s> A </s></s> B </s> around a pair, got <s> </s> around "
        f"an empty text and <s> </s> </s> around an empty pair {end}"
    )
