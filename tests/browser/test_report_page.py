"""The report in a real browser: nothing on the console, no network, sorting, grouping, figures, phone, dark, keyboard.

tests/browser/install.sh installs Debian's Chromium and the fonts.
"""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.browser.chromium import BROWSER, Chromium
from tests.browser.pages import HARM, LANGUAGES, write_runs
from xlmrxl_train.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Debian's Chromium: tests/browser/install.sh"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the report of one run, and that of two groups of two seeds."""
    folder = tmp_path_factory.mktemp("pages")
    first = write_runs(folder / "a", seeds=2)
    second = write_runs(folder / "b", seeds=2, shift=3, lr="2e-3")
    found = {"one": first[:1], "two": first + second}
    for name, runs in found.items():
        assert main(["report", *map(str, runs), "--output", str(folder / f"{name}.html")]) == 0
    return {name: folder / f"{name}.html" for name in found}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def column(chromium: Chromium, index: int) -> list[str]:
    """Return the texts of a column of the table of scores, without averages."""
    rows = f"[...document.querySelectorAll('#scores-1 tbody tr')].map(row => row.cells[{index}].innerText.trim())"
    return chromium.evaluate(rows)


@pytest.mark.parametrize("phone", [False, True])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["one", "two"])
def test_it_opens_without_a_complaint(
    name: str, dark: bool, phone: bool, pages: dict[str, Path], chromium: Chromium, tmp_path: Path
) -> None:
    chromium.look(width=390 if phone else 1280, height=844, dark=dark, phone=phone)
    chromium.open(pages[name])
    assert chromium.complaints() == []
    assert {address.partition(":")[0] for address in chromium.requests()} <= {"file", "data", "blob"}
    assert chromium.evaluate("document.title") == "sample NLI: report"
    assert chromium.evaluate("document.documentElement.scrollWidth <= innerWidth")
    drawn = "[...document.querySelectorAll('.plot')].map(plot => plot.querySelectorAll('.main-svg').length > 0)"
    figures = chromium.evaluate(drawn)
    assert len(figures) == 8 and all(figures)  # by step, transfer, loss, rate, norm, speed, memory, confusion
    light = chromium.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0] > 128")
    assert light is not dark
    ink = chromium.evaluate("document.querySelector('.heat .xtick text').style.fill")
    assert (int(re.findall(r"\d+", ink)[0]) > 128) is dark
    chromium.screenshot(tmp_path / "page.png", whole=True)
    assert chromium.evaluate("document.documentElement.scrollWidth <= innerWidth") and chromium.complaints() == []
    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert pages[name].stat().st_size < 6_000_000


def test_figures_keep_their_height_in_another_width(pages: dict[str, Path], chromium: Chromium) -> None:
    chromium.look(width=1280, height=844)
    chromium.open(pages["two"])
    heights = "[...document.querySelectorAll('.plot .main-svg:first-child')].map(svg => svg.clientHeight)"
    before = chromium.evaluate(heights)
    for width in (800, 1100):
        chromium.look(width=width, height=844)
        chromium.wait(
            "[...document.querySelectorAll('.plot')].every(plot => plot.clientWidth === plot._fullLayout.width)"
        )
    assert chromium.evaluate(heights) == before and min(before) > 200
    assert chromium.complaints() == []


def test_colours_follow_a_change(pages: dict[str, Path], chromium: Chromium) -> None:
    chromium.look(width=1280, height=844)
    chromium.open(pages["one"])
    chromium.look(width=1280, height=844, dark=True)
    chromium.wait("document.querySelector('.heat .xtick text').style.fill.match(/[0-9]+/)[0] > 128")


def test_columns_sort_and_groups_hold(pages: dict[str, Path], chromium: Chromium) -> None:
    chromium.look(width=1280, height=844)
    chromium.open(pages["one"])
    before = column(chromium, 1)
    head = "document.querySelectorAll('#scores-1 thead th')[1]"
    chromium.evaluate(f"{head}.querySelector('button').click()")
    assert chromium.evaluate(f"{head}.getAttribute('aria-sort')") == "descending"
    assert column(chromium, 1) == sorted(before, key=float, reverse=True) != before[::-1]
    chromium.evaluate(f"{head}.querySelector('button').click()")
    assert chromium.evaluate(f"{head}.getAttribute('aria-sort')") == "ascending"
    assert column(chromium, 1) == sorted(before, key=float)
    assert chromium.evaluate("document.getElementById('said').textContent") == "sorted by accuracy, ascending"
    choose(chromium, "#group-1", "script")
    heads = chromium.evaluate("[...document.querySelectorAll('#scores-1 .group')].map(row => row.cells[0].innerText)")
    assert "Cyrl: 2 languages, mean" in heads and "Thai: 1 language" in heads and len(heads) == 7
    means = chromium.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#scores-1 .group')]"
        ".map(row => [row.cells[0].innerText.slice(0, 4), row.cells[1].innerText]))"
    )
    scores = dict(zip(LANGUAGES, map(float, before), strict=True))
    assert float(means["Cyrl"]) == pytest.approx((scores["bg"] + scores["ru"]) / 2, abs=0.06)
    choose(chromium, "#group-1", "size")
    assert "1 to 10 GiB: 2 languages, mean" in "\n".join(column(chromium, 0))
    choose(chromium, "#group-1", "")
    assert column(chromium, 1) == sorted(before, key=float)


def choose(chromium: Chromium, select: str, value: str) -> None:
    place = f"document.querySelector({json.dumps(select)})"
    chromium.evaluate(f"{place}.value = {json.dumps(value)}; {place}.dispatchEvent(new Event('change'))")


def test_figures_tell_their_numbers(pages: dict[str, Path], chromium: Chromium) -> None:
    chromium.look(width=1280, height=844)
    chromium.open(pages["two"])
    last = "[...document.querySelectorAll('figure')].at(-1)"
    options = chromium.evaluate(f"[...{last}.querySelectorAll('option')].map(option => option.innerText)")
    assert options[0] == "A: all languages" and "B: Urdu (ur)" in options and len(options) == 32
    choose(chromium, "#figure-8 select", str(options.index("B: Urdu (ur)")))
    chromium.evaluate(f"{last}.querySelector('summary').click()")
    chromium.wait(f"{last}.querySelector('table')")
    rows = chromium.evaluate(f"[...{last}.querySelectorAll('tbody td')].map(cell => Number(cell.innerText))")
    assert sum(rows) == 30 and len(rows) == 9
    assert "Urdu" in chromium.evaluate(f"{last}.querySelector('.plot').getAttribute('aria-label')")
    cells = "document.querySelector('.heat .plot .nsewdrag')"
    chromium.evaluate(f"{cells}.scrollIntoView({{ behavior: 'instant', block: 'center' }})")
    box = chromium.evaluate(f"{cells}.getBoundingClientRect().toJSON()")
    for shift in (0, 3):  # a pointer that comes and moves
        chromium.call("Input.dispatchMouseEvent", type="mouseMoved", x=box["x"] + 60 + shift, y=box["y"] + 8)
    chromium.wait("document.querySelector('.hovertext')")
    assert "English (en)" in chromium.evaluate("document.querySelector('.hovertext').textContent")


@pytest.mark.parametrize("form", ["png", "svg"])
def test_figures_are_saved(form: str, pages: dict[str, Path], chromium: Chromium) -> None:
    chromium.look(width=1280, height=844)
    chromium.open(pages["one"])
    chromium.evaluate(f"document.querySelector('#figure-3 [data-save={form}]').click()")
    file = chromium.downloads / f"training-loss.{form}"
    chromium.wait(f"document.getElementById('said').textContent === '{file.name} is saved'")
    end = time.monotonic() + 20
    while not file.is_file() and time.monotonic() < end:
        time.sleep(0.05)
    if form == "png":
        assert file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 5_000
    else:
        assert ElementTree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert chromium.complaints() == []


def test_texts_do_no_harm_and_hide_nothing(pages: dict[str, Path], chromium: Chromium) -> None:
    chromium.look(width=1280, height=844)
    chromium.open(pages["one"])
    chromium.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert chromium.evaluate("document.title") == "sample NLI: report"
    assert chromium.evaluate("document.querySelectorAll('main img, main b').length") == 0
    texts = chromium.evaluate("[...document.querySelectorAll('.text[lang=en-Latn]')].map(text => text.textContent)")
    assert HARM[0] in texts and HARM[1] in texts and HARM[2] in texts
    named = [text for text in texts if "U+202E" in text or "U+0000" in text]
    assert len(named) == 2 and not any(set("\u202e\u2066\x00\x1b") & set(text) for text in texts)


def test_every_script_has_its_letters(pages: dict[str, Path], chromium: Chromium) -> None:
    """No letter of the sentences looks like the box that stands for a letter without a glyph."""
    chromium.look(width=1280, height=844)
    chromium.open(pages["one"])
    chromium.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    missing = chromium.evaluate(
        """(() => {
          const canvas = Object.assign(document.createElement('canvas'), { width: 60, height: 60 });
          const pen = canvas.getContext('2d', { willReadFrequently: true });
          const picture = (letter, font) => {
            pen.clearRect(0, 0, 60, 60); pen.font = `32px ${font}`; pen.fillText(letter, 10, 42);
            return pen.getImageData(0, 0, 60, 60).data.join();
          };
          const found = {};
          for (const text of document.querySelectorAll('p.text')) {
            const font = getComputedStyle(text).fontFamily;
            const nothing = [picture('\\u0378', font), picture(' ', font)];
            const letters = [...new Set(text.textContent.match(/\\p{L}/gu) ?? [])];
            const lost = letters.filter((letter) => nothing.includes(picture(letter, font)));
            (found[text.lang] ??= []).push(...lost);
          }
          return found;
        })()"""
    )
    assert len(missing) == 15
    assert {lang: letters for lang, letters in missing.items() if letters} == {}


def test_right_to_left_reads_from_the_right(pages: dict[str, Path], chromium: Chromium) -> None:
    chromium.look(width=390, height=844, phone=True)
    chromium.open(pages["one"])
    chromium.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    directions = chromium.evaluate(
        "[...document.querySelectorAll('p.text')].map(text => [text.lang, /\\p{Script=Arab}/u.test(text.textContent),"
        " text.matches(':dir(rtl)')])"
    )
    assert {(lang, rtl) for lang, arabic, rtl in directions if arabic} == {("ar-Arab", True), ("ur-Arab", True)}
    assert not any(rtl for _, arabic, rtl in directions if not arabic)
    assert chromium.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_it_is_used_by_keyboard(pages: dict[str, Path], chromium: Chromium) -> None:
    chromium.look(width=1280, height=844)
    chromium.open(pages["one"])
    chromium.press("Tab")
    assert chromium.evaluate("document.activeElement.className") == "skip"
    reached = []
    for _ in range(12):
        chromium.press("Tab")
        reached.append(chromium.evaluate("document.activeElement.innerText.trim().split('\\n')[0]"))
        if reached[-1] == "accuracy" and chromium.evaluate("document.activeElement.tagName") == "BUTTON":
            break
    outline = chromium.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert reached[-1] == "accuracy" and outline == "solid"
    chromium.press("Enter")
    assert chromium.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"
    summary = "document.querySelector('.mistakes summary')"
    chromium.evaluate(f"{summary}.focus()")
    chromium.press("Enter")
    assert chromium.evaluate(f"{summary}.parentElement.open")


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_screen_reader_finds_names(name: str, pages: dict[str, Path], chromium: Chromium) -> None:
    chromium.look(width=1280, height=844)
    chromium.open(pages[name])
    chromium.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    nodes = [node for node in chromium.call("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]

    def said(node: dict[str, Any], key: str) -> str:
        return node.get(key, {}).get("value", "")

    named = ("button", "combobox", "image", "img", "table", "region", "columnheader", "link", "DisclosureTriangle")
    nameless = [said(node, "role") for node in nodes if said(node, "role") in named and not said(node, "name")]
    assert nameless == []
    roles = {said(node, "role") for node in nodes}
    assert {"table", "columnheader", "rowheader", "main", "heading", "combobox", "button", "status"} <= roles
    images = [said(node, "name") for node in nodes if said(node, "role") in ("image", "img")]
    assert any("best English" in text for text in images) and len(images) >= 8
