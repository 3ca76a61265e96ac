"""The UDHR's XML: what it gives, what real files hold, and what is said about files that break it."""

import gzip
from pathlib import Path

import pytest

from xlmrxl_train.config import FileSet
from xlmrxl_train.data.formats import format_of, read_records
from xlmrxl_train.errors import ConfigError, DataError

DOCUMENT = """<?xml version="1.0" encoding="UTF-8"?>
<udhr iso639-3='xxx' xmlns="http://efele.net/udhr">
  <title>Haki</title>
  <note><para>Ilitangazwa</para></note>
  <preamble>
    <title>Utangulizi</title>
    <para>Kwa kuwa
       ni  muhimu &#x0627; &amp; <![CDATA[<b>]]></para>
    <para> </para>
  </preamble>
  <article number="11">
    <title>Kifungu 11</title>
    <orderedlist>
      <listitem><para>Moja</para></listitem>
      <listitem><para>Mbili</para><para>Tatu</para></listitem>
    </orderedlist>
    <para>Nne</para>
  </article>
</udhr>
"""
UDHR = FileSet(path="x.xml", format="udhr")


def read(file: Path, content: str | bytes) -> list[tuple[str, dict]]:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_records(file, "udhr", UDHR, []))


def test_titles_and_paragraphs_in_order(tmp_path: Path) -> None:
    file = tmp_path / "x.xml"
    got = read(file, DOCUMENT)
    assert [(where.removeprefix(f"{file}:"), row["id"], row["part"], row["text"]) for where, row in got] == [
        ("3", "title", "title", "Haki"),
        ("4", "note/para-1", "para", "Ilitangazwa"),
        ("6", "preamble/title", "title", "Utangulizi"),
        ("7", "preamble/para-1", "para", "Kwa kuwa ni muhimu ا & <b>"),
        ("12", "article-11/title", "title", "Kifungu 11"),
        ("14", "article-11/orderedlist/listitem-1/para-1", "para", "Moja"),
        ("15", "article-11/orderedlist/listitem-2/para-1", "para", "Mbili"),
        ("15", "article-11/orderedlist/listitem-2/para-2", "para", "Tatu"),
        ("17", "article-11/para-1", "para", "Nne"),
    ]
    assert [row for _, row in read(tmp_path / "x.xml.gz", gzip.compress(DOCUMENT.encode()))] == [row for _, row in got]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '<!DOCTYPE udhr [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>\n<udhr><title>&b;</title></udhr>',
            ":1: expected XML without a DOCTYPE, found one. Remove it, and write entities out.",
        ),
        (
            '<?xml version="1.0"?>\n<!DOCTYPE udhr SYSTEM "file:///etc/passwd">\n<udhr/>',
            ":2: expected XML without a DOCTYPE, found one. Remove it, and write entities out.",
        ),
        (
            "<udhr>\n<title>&lol;</title></udhr>",
            ":2: expected well-formed XML, found a fault (undefined entity). Mend the line.",
        ),
        (
            "<udhr>\n<title>a</para></udhr>",
            ":2: expected well-formed XML, found a fault (mismatched tag). Mend the line.",
        ),
        ("<udhr><title>a", ":2: expected well-formed XML, found a fault (no element found). Mend the line."),
        ("text", ":1: expected well-formed XML, found a fault (syntax error). Mend the line."),
        (
            "<html>\n</html>",
            ":1: expected the document element <udhr>, found 'html'. "
            "Set the format of its files, or leave the file out.",
        ),
        (
            "<udhr>" + "<note>" * 20,
            ":1: expected at most 16 elements within one another, found more. Mend the file.",
        ),
        (
            "<udhr><title>a\n<b>c</b></title></udhr>",
            ":2: expected text alone in <title>, found 'b'. Mend the line.",
        ),
        (
            "<udhr>\n<article>lost</article></udhr>",
            ":2: expected text in <title> or <para> only, found 'lost'. Mend the line.",
        ),
        (b"<udhr><title>\xff</title></udhr>", ":1: expected UTF-8, got the byte 0xff at byte 14 of the line. "),
        ("<udhr></udhr>", ": expected at least one record, found none. Fill the file, or take it out"),
    ],
)
def test_faults(content: str | bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "x.xml"
    with pytest.raises(DataError) as caught:
        read(file, content)
    assert str(caught.value).startswith(f"{file}{message}")
    assert "\n" not in str(caught.value)


def test_the_suffix_alone_says_nothing() -> None:
    with pytest.raises(ConfigError, match=r"k\.format must be tsv \| .* \| udhr for x\.xml, got auto\. Set it\."):
        format_of(Path("x.xml"), FileSet(path="x.xml"), "k")


def test_every_real_document(shared_data: Path) -> None:
    files = sorted((shared_data / "text" / "udhr").glob("udhr_*.xml"))
    assert len(files) > 90
    for file in files:
        rows = [row for _, row in read_records(file, "udhr", UDHR, [])]
        ids = [row["id"] for row in rows]
        assert len(ids) == len(set(ids)) and len(rows) > 70, file
        assert all(row["text"] == row["text"].strip() and "\n" not in row["text"] for row in rows)
        assert [row["id"] for row in rows if row["id"].startswith("article-30")]
