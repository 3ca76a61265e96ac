"""Entities in a sentence of tags, by the rules of the seqeval library: conlleval's, and strict IOB2.

Source: chakki-works/seqeval, `get_entities`, `start_of_chunk` and `end_of_chunk` of
seqeval/metrics/sequence_labeling.py, and `IOB2` of seqeval/scheme.py, versions 0.0.12 and 1.2.2.

An entity is (type, first token, last token). seqeval joins the sentences of a file with an "O" between them; here each
sentence is read on its own, as if after an "O". So is every sentence but the first there, whose first tag always begins
an entity; elsewhere a tag of O's own type (such as a bare "X", whose type is "_") does not.
"""

from collections.abc import Callable, Sequence

from xlmrxl_train.errors import ConfigError

Entity = tuple[str, int, int]

_OUTSIDE = ("O", ".")  # prefixes of tags that belong to no entity, whatever their type
_ENDS = {("B", "B"), ("B", "S"), ("B", "O"), ("I", "B"), ("I", "S"), ("I", "O")}  # (prefix, next prefix)
_STARTS = {(before, prefix) for before in "OES" for prefix in "EI"}


def type_after_prefix(tag: str) -> str:
    """Return what follows the first character and a hyphen: seqeval since 0.0.16.

    "B-a-b" is an "a-b"; "NOUN" is an "OUN"; "X" is a "_".
    """
    return tag[1:].split("-", maxsplit=1)[-1] or "_"


def type_after_last_hyphen(tag: str) -> str:
    """Return what follows the last hyphen, the whole tag if there is none: seqeval up to 0.0.15.

    "B-a-b" is a "b"; "NOUN" is a "NOUN"; "X" is an "X".
    """
    return tag.split("-")[-1]


def conlleval(tags: Sequence[str], type_of: Callable[[str], str]) -> set[Entity]:
    """Return the entities of one sentence by conlleval's rule, which takes any tags and refuses none.

    A tag's prefix is its first character. An entity goes on while the type stays the same, whatever the prefix, except
    that B and S begin a new one, S and E end one, and O and "." belong to none.

    Args:
        tags: One sentence, for example B-PER I-PER O.
        type_of: A tag's type.
    """
    entities = set()
    # Some odd tags end an entity that none began (a bare "I" after a "."). seqeval then takes the last beginning seen:
    # at a sentence's start one of the sentence before, which is never that of an entity of this one.
    before, type_before, start = "O", type_of("O"), -1
    for position, tag in enumerate([*tags, "O"]):
        prefix, type_now = tag[0], type_of(tag)
        changed = type_now != type_before
        if before in "ES" or (before, prefix) in _ENDS or (changed and before not in _OUTSIDE):
            entities.add((type_before, start, position - 1))
        if prefix in "BS" or (before, prefix) in _STARTS or (changed and prefix not in _OUTSIDE):
            start = position
        before, type_before = prefix, type_now
    return entities


def strict_iob2(tags: Sequence[str]) -> set[Entity]:
    """Return the entities of one sentence that begin with B and go on with I of the same type; other I are nothing.

    Raises:
        ConfigError: A tag begins with something else than B, I or O.
    """
    entities: set[Entity] = set()
    start, open_type = 0, None
    for position, tag in enumerate([*tags, "O"]):
        prefix, type_now = tag[:1], tag[1:].strip("-") or "_"
        if prefix not in ("B", "I", "O"):
            raise ConfigError(
                f"dataset.labels must be O, B-<type> and I-<type> for entity_f1_strict, got {tag!r}. Use entity_f1."
            )
        if open_type is not None and (prefix != "I" or type_now != open_type):
            entities.add((open_type, start, position - 1))
            open_type = None
        if prefix == "B":
            start, open_type = position, type_now
    return entities
