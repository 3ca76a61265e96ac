"""Words of an answer as the question answering benchmarks compare them: lower case, no punctuation, no articles.

Each rule takes (text, language) and returns tokens. All lower the text first, then take punctuation out (which joins
what it stood between: "3,5" becomes "35"), then put a blank for articles, then cut at white space.
"""

import re
import string
import unicodedata

from xlmrxl_train.errors import ConfigError

_ENGLISH_ARTICLES = re.compile(r"\b(a|an|the)\b")

# As published. The Arabic pattern there, "\sال^|ال", has a first half that can match nothing: every ال goes, also
# inside of a word. Languages with None have no articles.
_MLQA_ARTICLES: dict[str, re.Pattern[str] | None] = {
    "ar": re.compile("ال"),
    "de": re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "en": _ENGLISH_ARTICLES,
    "es": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
    "hi": None,
    "vi": re.compile(r"\b(của|là|cái|chiếc|những)\b"),
    "zh": None,
}
_FAIR_ARTICLES = _MLQA_ARTICLES | {"el": None, "ja": None, "ro": None, "ru": None, "th": None, "tr": None}

_IDEOGRAPHS = r"\u4e00-\u9fa5"
# The characters that are tokens of their own in a language that puts no blanks between words; MLQA has Chinese only.
_SEGMENTED = {
    language: re.compile(f"[{characters}]|[^\\s{characters}]+")
    for language, characters in {
        "zh": _IDEOGRAPHS,
        "ja": _IDEOGRAPHS + r"\u3040-\u30ff",
        "th": _IDEOGRAPHS + r"\u0e00-\u0e7f",
    }.items()
}

MLQA_LANGUAGES = tuple(sorted(_MLQA_ARTICLES))
FAIR_LANGUAGES = tuple(sorted(_FAIR_ARTICLES))


def squad(text: str, language: str) -> list[str]:
    """Return tokens by SQuAD v1.1's rule: English articles and ASCII punctuation, whatever the language.

    Source: SQuAD's evaluate-v1.1.py, `normalize_answer`.
    """
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return _ENGLISH_ARTICLES.sub(" ", kept).split()


def mlqa(text: str, language: str) -> list[str]:
    """Return tokens by MLQA's rule: articles of the language, Unicode's punctuation, Chinese by characters.

    Source: facebookresearch/MLQA mlqa_evaluation_v1.py at 5ef5c731, `normalize_answer`.

    Args:
        text: An answer.
        language: One of `MLQA_LANGUAGES`: the answer's, not the question's.

    Raises:
        ConfigError: There is no rule for the language.
    """
    return _tokens(text, _known(language, MLQA_LANGUAGES, "mlqa"))


def fair(text: str, language: str) -> list[str]:
    """Return tokens by MLQA's rule, extended to XQuAD's languages; Thai (and Japanese) by characters like Chinese.

    Greek, Romanian, Russian and Turkish have no list of articles. A character is a code point, so a Thai vowel sign is
    a token too. ml-mkqa (apple/ml-mkqa mkqa_eval_util.py at 94ed242c) cuts Thai and Japanese by characters as well.

    Args:
        text: An answer.
        language: One of `FAIR_LANGUAGES`.

    Raises:
        ConfigError: There is no rule for the language.
    """
    return _tokens(text, _known(language, FAIR_LANGUAGES, "xquad_fair"))


def _known(language: str, languages: tuple[str, ...], metric: str) -> str:
    if language not in languages:
        raise ConfigError(
            f"dataset.metrics: {metric}_f1 and {metric}_exact_match must have answers in {', '.join(languages)}, "
            f"got language {language!r}. Use squad_f1 and squad_exact_match."
        )
    return language


def _tokens(text: str, language: str) -> list[str]:
    kept = "".join(character for character in text.lower() if not _is_punctuation(character))
    if articles := _FAIR_ARTICLES[language]:
        kept = articles.sub(" ", kept)
    segmented = _SEGMENTED.get(language)
    return segmented.findall(kept) if segmented else kept.split()


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character).startswith("P") or character in string.punctuation
