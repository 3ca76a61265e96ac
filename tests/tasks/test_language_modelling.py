"""Which text makes a sequence: rows, joined lines, documents."""

from collections.abc import Iterator

import numpy as np
import pytest

from xlmrxl_train.config import DatasetConfig, MaskedLanguageModellingConfig
from xlmrxl_train.data.examples import Example, Row
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.metrics import load
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.tasks import language_modelling
from xlmrxl_train.tasks.masked_language_modelling import MaskedLanguageModelling

TOKENIZER = Tokenizer.from_path(SAMPLE_TOKENIZER)


def task(**settings) -> MaskedLanguageModelling:
    dataset = DatasetConfig(name="toy", kind="masked_language_modelling", columns={"text": "text"})
    return MaskedLanguageModelling(MaskedLanguageModellingConfig(**settings), dataset, TOKENIZER)


def rows(*texts: object) -> Iterator[Row]:
    for number, text in enumerate(texts):
        yield Row(id=str(number), values={"text": text}, where=f"t.txt:{number + 1}", language="sw")


def sequences(of: MaskedLanguageModelling, examples: list[Example]) -> dict[str, str]:
    encoded = of.encode(examples)
    assert all(len(features) == 1 for features in encoded)
    assert all(len(feature.input_ids) <= of.max_length for [feature] in encoded)
    decoded = TOKENIZER.batch_decode([feature.input_ids for [feature] in encoded])
    return dict(zip([example.id for example in examples], decoded, strict=True))


def test_a_row_is_a_sequence_and_blank_ones_are_left_out() -> None:
    plain = task()
    examples = list(plain.examples(rows("a b", "", " \t", "c")))
    assert sequences(plain, examples) == {"0": "<s> a b</s>", "3": "<s> c</s>"}
    assert examples[1].where == "t.txt:4" and examples[1].language == "sw"


@pytest.mark.parametrize("at_a_time", [1, 2, 1000])
def test_lines_are_joined_and_blank_ones_part_documents(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_modelling, "_LINES", at_a_time)
    joining = task(join="lines", max_length=16)
    examples = list(joining.examples(rows("a b", "c d", "", "e f", " ", "", "g h a b c d e")))
    assert sequences(joining, examples) == {"0": "<s> a b c d</s> e f</s>", "6": "<s> g h a b c d e</s>"}
    assert (examples[1].where, examples[1].language) == ("t.txt:7", "sw")


def test_documents_are_cut_at_their_lines() -> None:
    joining = task(join="documents", max_length=16)
    examples = list(joining.examples(rows("a b\n\nc d\n", "e f", "g h a\nb c\nd e f g h", "")))
    assert sequences(joining, examples) == {"0:1": "<s> a b c d</s> e f</s>", "2:1": "<s> g h a b c</s>",
                                            "2:3": "<s> d e f g h</s>"}  # fmt: skip
    assert examples[1].where == "t.txt:3"


def test_no_token_of_a_long_line_is_lost() -> None:
    joining = task(join="lines", max_length=8)
    text = " ".join("abcdefgh"[i % 8] for i in range(50))
    examples = list(joining.examples(rows("c", text, "d")))
    tokens = [token for [feature] in joining.encode(examples) for token in feature.input_ids[1:-1]]
    assert tokens == TOKENIZER.encode("c")[1:-1] + TOKENIZER.encode(text)[1:-1] + TOKENIZER.encode("d")[1:-1]
    assert [example.id for example in examples[:4]] == ["0", "1", "1.1", "1.2"]


def test_joined_lines_must_be_text_too() -> None:
    with pytest.raises(DataError, match=r"^t\.txt:2: column 'text' must hold text, got None\. Mend the row, or map"):
        list(task(join="lines").examples(rows("a", None)))


def test_what_makes_a_sequence_is_part_of_the_features_fingerprint() -> None:
    assert task().encoding != task(join="lines").encoding
    assert task().encoding == task(whole_word=True, mask_probability=0.3).encoding  # drawn anew in every epoch


def test_loss_is_the_logarithm_of_perplexity() -> None:
    loss, perplexity = load("loss"), load("perplexity")
    summed, counts = [3.0, 0.0, 8.5], [2, 0, 3]
    table = loss.statistics(summed, counts)
    assert (table == perplexity.statistics(summed, counts)).all()
    assert loss.fold(table) == pytest.approx(11.5 / 5) == pytest.approx(np.log(perplexity.fold(table)))
    assert np.isnan(loss.fold(table[1:2])) and not loss.HIGHER_IS_BETTER
    assert load("loss").fold(loss.statistics([0.0], [4])) == 0.0  # a model that is sure and right
