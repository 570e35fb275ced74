import re
from html.parser import HTMLParser
from typing import Any, NamedTuple

import numpy as np
import pytest

from ich_lstm.labels import LABELS
from ich_lstm.pages.audit_page import audit_page

FACTS = {"slices": ("Slices per scan", ""), "hu_p50": ("Median", "HU")}


class Tile(NamedTuple):
    hu: np.ndarray
    scan_id: str
    slice: int
    labels: tuple[str, ...]


def finding(code: str, action: str, **changes: Any) -> dict[str, Any]:
    words = {"title": f"title of {code}", "meaning": f"meaning of {code}", "todo": f"todo of {code}"}
    return {"code": code, "action": action, "count": 12345, "examples": ["7f3a"], "listed": 12345, **words, **changes}


def make_summary(**changes: Any) -> dict[str, Any]:
    counts = {"patients": 7, "scans": 8, "slices": 90}
    positive = {"patients": 2, "scans": 2, "slices": 9, "unknown_slices": 0}
    known = {"edges": [19.5, 20.5, 21.5, 22.5], "counts": [3, 0, 1], "unusual": [0, 0, 1], "unknown": 2}
    none = {"edges": [], "counts": [], "unusual": [], "unknown": 6, "median": None, "smallest": None, "largest": None}
    return {
        "stops": 0,
        "flags": 0,
        "findings": [],
        "passed": [{"code": "same_pixels", "title": "pairs of scans"}],
        "parts": {"train": counts, "test": counts},
        "labels": {label: {"train": positive, "test": positive} for label in LABELS},
        "histograms": {"slices": {**known, "median": 20.0, "smallest": 20.0, "largest": 22.0}, "hu_p50": none},
        "scans_per_study": {"1": 8},
        "series_per_study": {"1": 7, "4": 1},
        "studies_per_patient": {"1": 6, "2": 1},
        "scan_flags": {"uneven_spacing": 3},
        "split": {"by": "random", "seed": 4, "id": "0123456789abcdef", "fractions": [0.7, 0.15, 0.15]},
    } | changes


class Closed(HTMLParser):
    """Fails on tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def shown(html: str) -> str:
    body = html.partition("<body>")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_findings_stand_with_what_to_do():
    summary = make_summary(findings=[finding("one", "STOP"), finding("two", "FLAG", examples=[], todo="")], stops=1, flags=1)
    html = audit_page(summary, FACTS, {})
    text = shown(html)
    Closed(html)
    for wanted in (
        "1 finding to resolve",
        "12,345 title of one meaning of one todo of one 7f3a and 12,344 more",
        "meaning of two",
    ):
        assert wanted in text
    assert html.count('class="finding stop"') == 1


@pytest.mark.parametrize(("flags", "words"), [(0, "No finding prevents training"), (2, "2 findings to note")])
def test_ready(flags: int, words: str):
    assert words in shown(audit_page(make_summary(flags=flags), FACTS, {}))


def test_counts_have_their_share():
    text = shown(audit_page(make_summary(), FACTS, {}))
    assert re.search(r"Epidural 2 29 % 2 25 % 9 10 % 2 29 %", text)
    assert "Training Held out" in text


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"by": "random", "seed": 4, "id": "", "fractions": [0.7, 0.15, 0.15]}, "at random, 70 / 15 / 15, seed 4"),
        ({"by": "random", "seed": 4, "id": "", "folds": 5, "fold": 2}, "5 folds, fold 2 held out, seed 4"),
        ({"by": "date", "seed": 4, "id": "", "fractions": [1, 1, 1], "first_years": ["2020", ""]}, "first years 2020"),
    ],
)
def test_the_split_in_words(split: dict[str, Any], words: str):
    assert words in shown(audit_page(make_summary(split=split), FACTS, {}))


def test_histograms_mark_what_is_unusual():
    html = audit_page(make_summary(), FACTS, {})
    assert html.count("<rect") == 2
    assert html.count('class="unusual"') == 1
    assert "unknown for 6" in shown(html)


def test_a_histogram_of_nothing_is_no_empty_frame():
    summary = make_summary()
    for histogram in summary["histograms"].values():
        histogram |= dict.fromkeys(("smallest", "median", "largest")) | {"counts": [], "edges": [], "unusual": [], "unknown": 7}
    html = audit_page(summary, FACTS, {})
    assert "<svg" not in html
    assert "median" not in shown(html)
    assert "unknown for 7" in shown(html)


@pytest.mark.parametrize(("count", "words"), [(1, "1 scan<"), (2, "2 scans<")])
def test_a_bar_counts_in_words_that_agree(count: int, words: str):
    summary = make_summary()
    for histogram in summary["histograms"].values():
        histogram["counts"] = [count] * len(histogram["counts"])
    titles = re.findall(r"<rect[^>]*><title>[^<]*: ([^<]*<)", audit_page(summary, FACTS, {}))
    assert set(titles) == {words}


@pytest.mark.parametrize(("count", "share"), [(1, "13 %"), (3, "38 %"), (5, "63 %")])
def test_halves_of_a_percent_are_rounded_up_as_everywhere(count: int, share: str):
    summary = make_summary()
    for part in summary["parts"].values():
        part["patients"] = 8
    for part in summary["labels"]["epidural"].values():
        part["patients"] = count
    assert f"Epidural {count} {share} " in shown(audit_page(summary, FACTS, {}))


def test_pictures_are_inside_and_texts_are_escaped():
    bad = "<script>alert(1)</script>"
    tile = Tile(np.full((300, 300), 40, np.int16), bad, 3, ("epidural", "any", "subdural"))
    html = audit_page(
        make_summary(scan_flags={bad: 1}, findings=[finding(bad, "FLAG", examples=[bad])]), FACTS, {"epidural": [tile]}
    )
    assert "<script" not in html
    assert html.count("data:image/png;base64,") == 1
    assert "also subdural" in shown(html)
    assert all(source.startswith(("data:", "#")) for source in re.findall(r'(?:src|href)="([^"]*)"', html))
