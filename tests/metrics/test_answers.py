"""Answers by SQuAD's and MLQA's rules: cases worked by hand from the official scripts, which cannot be shipped.

Sources: evaluate-v1.1.py of SQuAD; mlqa_evaluation_v1.py of facebookresearch/MLQA at 5ef5c731.
"""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmrxl_train import metrics
from xlmrxl_train.errors import ConfigError

# Prediction, gold answers, exact match, F1. Where there are fractions: tokens in both, predicted, gold.
SQUAD = [
    ("The Eiffel Tower!", ["eiffel tower"], 1, 1),
    ("in the 19th century", ["the century", "19th century"], 0, 2 * 2 / (3 + 2)),
    ("new york new york", ["New York"], 0, 2 * 2 / (4 + 2)),
    ("new york new york", ["york, new york city"], 0, 2 * 3 / (4 + 4)),  # as often as it is in both
    ("the-cat", ["cat"], 0, 0),  # punctuation goes first, so "thecat" has no article left
    ("3,5 %", ["35"], 1, 1),
    ("U.S.A.", ["USA"], 1, 1),
    ("the\u00a0sun\u3000", ["sun"], 1, 1),  # white space is Unicode's
    ("", ["x"], 0, 0),
    ("x", [""], 0, 0),
    ("", ["The"], 1, 0),  # nothing left of either: equal, but no word in common
    ("the", ["the"], 1, 0),
    ("Euler’s", ["Eulers"], 0, 0),  # a curly apostrophe is no ASCII punctuation
    ("la casa", ["casa"], 0, 2 * 1 / (2 + 1)),  # English articles only
    ("a casa", ["casa"], 1, 1),  # and these in every language
    ("die Katze", ["Katze"], 0, 2 * 1 / (2 + 1)),
    ("القاهرة", ["قاهرة"], 0, 0),
    ("القاهرة،", ["القاهرة"], 0, 0),
    ("भारत।", ["भारत"], 0, 0),
    ("北京，", ["北京"], 0, 0),
    ("北京市", ["北京"], 0, 0),
    ("กรุงเทพมหานคร", ["กรุงเทพ"], 0, 0),
    ("İstanbul", ["istanbul"], 0, 0),  # lower() gives an i and a combining dot
    ("ÉCOLE", ["école"], 1, 1),
]
MLQA = [
    ("en", "The “Tower”", ["tower"], 1, 1),
    ("en", "Euler’s", ["Eulers"], 1, 1),
    ("en", "$5", ["5"], 1, 1),  # ASCII, though not of category P
    ("en", "€5", ["5"], 0, 0),
    ("en", "the", ["the"], 1, 0),
    ("en", "in the 19th century", ["the century", "19th century"], 0, 2 * 2 / (3 + 2)),
    ("es", "Los Ángeles", ["ángeles"], 1, 1),
    ("es", "¿el perro grande?", ["perro"], 0, 2 * 1 / (2 + 1)),
    ("es", "una", ["una"], 1, 0),
    ("es", "a Madrid", ["Madrid"], 0, 2 * 1 / (2 + 1)),  # no English articles
    ("es", "del rey", ["rey"], 0, 2 * 1 / (2 + 1)),  # a whole word only
    ("de", "Der Hund des Mannes", ["Hund Mannes"], 1, 1),
    ("de", "„dem Kaiser“", ["einen Kaiser"], 1, 1),
    ("de", "the Kaiser", ["Kaiser"], 0, 2 * 1 / (2 + 1)),
    ("de", "derselbe", ["selbe"], 0, 0),
    ("vi", "những người của tôi", ["người tôi"], 1, 1),
    ("vi", "Là vua", ["cái vua"], 1, 1),
    ("vi", unicodedata.normalize("NFD", "của vua"), ["vua"], 0, 2 * 1 / (2 + 1)),  # the list is composed
    ("ar", "القاهرة", ["قاهرة"], 1, 1),
    ("ar", "القاهرة،", ["القاهرة"], 1, 1),
    ("ar", "والقاهرة", ["قاهرة"], 0, 2 * 1 / (2 + 1)),  # و قاهرة
    ("ar", "خالد", ["خ د"], 1, 1),  # inside of a word too
    ("ar", "خالد", ["خالدون"], 0, 2 * 1 / (2 + 2)),  # خ د, خ دون
    ("ar", "ال", ["؟"], 1, 0),
    ("hi", "भारत।", ["भारत"], 1, 1),
    ("hi", "नई दिल्ली॥", ["दिल्ली"], 0, 2 * 1 / (2 + 1)),
    ("hi", "the दिल्ली", ["दिल्ली"], 0, 2 * 1 / (2 + 1)),
    ("zh", "北京，", ["（北京）"], 1, 1),
    ("zh", "北京市", ["北京"], 0, 2 * 2 / (3 + 2)),
    ("zh", "北 京", ["北京"], 1, 1),
    ("zh", "NBA球队", ["nba 球队"], 1, 1),
    ("zh", "iPhone6手机", ["iphone 6 手机"], 0, 2 * 2 / (3 + 4)),  # iphone6 手 机, iphone 6 手 机
    ("zh", "二〇〇八年", ["二〇八年"], 0, 2 * 3 / (4 + 4)),  # the zero is no ideograph: 二 〇〇 八 年
    ("zh", "２００８年", ["2008年"], 0, 2 * 1 / (2 + 2)),
    ("zh", "the 北京", ["北京"], 0, 2 * 2 / (3 + 2)),
    ("zh", "\u9fa6\u9fa6", ["\u9fa6"], 0, 0),  # beyond the published range, so one word
    ("zh", "，。", ["！"], 1, 0),
    ("zh", "", ["北京"], 0, 0),
]
FAIR = [
    *MLQA,
    ("th", "กรุงเทพมหานคร", ["กรุงเทพ"], 0, 2 * 7 / (13 + 7)),
    ("th", "ที่นี่", ["ที"], 0, 2 * 2 / (6 + 2)),  # vowel and tone signs are tokens
    ("th", "ไทย แลนด์", ["ไทยแลนด์"], 1, 1),
    ("th", "UN ๆ", ["un"], 0, 2 * 1 / (2 + 1)),
    ("ja", "東京タワー", ["「東京」"], 0, 2 * 2 / (5 + 2)),
    ("el", "η Αθήνα", ["Αθήνα"], 0, 2 * 1 / (2 + 1)),
    ("ro", "un rege", ["rege"], 0, 2 * 1 / (2 + 1)),
    ("ru", "«Москва»", ["москва"], 1, 1),
    ("tr", "a Ankara", ["Ankara"], 0, 2 * 1 / (2 + 1)),  # no English articles
]


def scores(rule: str, prediction: str, reference: object) -> tuple[float, float]:
    both = [metrics.load(f"{rule}_{kind}") for kind in ("exact_match", "f1")]
    return tuple(metric.fold(metric.statistics([prediction], [reference])) for metric in both)


@pytest.mark.parametrize(("prediction", "texts", "exact", "f1"), SQUAD)
def test_squad(prediction: str, texts: list[str], exact: int, f1: float) -> None:
    assert scores("squad", prediction, texts) == (exact, pytest.approx(f1, abs=1e-12))
    assert scores("squad", prediction, {"texts": texts, "language": "zh"}) == scores("squad", prediction, texts)


@pytest.mark.parametrize(("language", "prediction", "texts", "exact", "f1"), MLQA)
def test_mlqa(language: str, prediction: str, texts: list[str], exact: int, f1: float) -> None:
    assert scores("mlqa", prediction, {"texts": texts, "language": language}) == (exact, pytest.approx(f1, abs=1e-12))


@pytest.mark.parametrize(("language", "prediction", "texts", "exact", "f1"), FAIR)
def test_fair(language: str, prediction: str, texts: list[str], exact: int, f1: float) -> None:
    found = scores("xquad_fair", prediction, {"texts": texts, "language": language})
    assert found == (exact, pytest.approx(f1, abs=1e-12))


def test_questions_count_the_same() -> None:
    metric = metrics.load("squad_f1")
    rows = metric.statistics(["a red car", "x", "sky"], [["red car"], ["y"], ["blue sky"]])
    assert rows.tolist() == [[1.0], [0.0], [pytest.approx(2 / 3)]]
    assert metric.fold(rows) == pytest.approx((1 + 0 + 2 / 3) / 3)


@pytest.mark.parametrize(
    ("rule", "language", "languages"),
    [
        ("mlqa", "fr", "ar, de, en, es, hi, vi, zh"),
        ("mlqa", "zho_Hans", "ar, de, en, es, hi, vi, zh"),
        ("xquad_fair", "sw", "ar, de, el, en, es, hi, ja, ro, ru, th, tr, vi, zh"),
    ],
)
def test_a_language_without_a_rule_is_named(rule: str, language: str, languages: str) -> None:
    message = (
        f"dataset.metrics: {rule}_f1 and {rule}_exact_match must have answers in {languages}, "
        f"got language {language!r}. Use squad_f1 and squad_exact_match."
    )
    assert ", ".join(metrics.load(f"{rule}_f1").LANGUAGES) == languages
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        scores(rule, "x", {"texts": ["x"], "language": language})


@pytest.mark.parametrize("reference", [[], {"texts": [], "language": "en"}, "a text"])
def test_gold_answers_are_a_list_of_some(reference: object) -> None:
    with pytest.raises(AssertionError):
        scores("squad", "x", reference)


@settings(deadline=None)
@given(
    st.text(max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=3), st.sampled_from(["ar", "zh", "vi"])
)
def test_an_exact_match_has_all_its_words(prediction: str, texts: list[str], language: str) -> None:
    for rule in ("squad", "mlqa", "xquad_fair"):
        exact, f1 = scores(rule, prediction, {"texts": texts, "language": language})
        assert exact in (0, 1) and 0 <= f1 <= 1
        assert not exact or f1 in (0, 1)  # 0: nothing is left to have in common
        assert scores(rule, texts[-1], {"texts": texts, "language": language})[0] == 1
