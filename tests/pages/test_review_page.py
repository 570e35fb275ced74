"""The page of the label audit."""

import base64
import re
from html.parser import HTMLParser
from typing import Any

import cv2
import numpy as np
import pytest

from ich_lstm.labels import LABELS
from ich_lstm.pages.review_page import ReviewCase, ReviewPicture, review_page

VOID = {"meta", "link", "img", "input"}


class Page(HTMLParser):
    """Tags of a page; fails on those that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def make_case(**changes: Any) -> ReviewCase:
    """Slice 7 of 20, labelled epidural and any, in which the model sees nothing; its HU are 40, its neighbours' 20 and 60."""
    hu = [np.full((8, 8), value, np.int16) for value in (20, 40, 60)]
    names = ((), ("epidural", "any"), None)
    values = {
        "level": "slice",
        "rank": 1,
        "scan_id": "7f3a19c04be2d851",
        "slice": 7,
        "slices": 20,
        "labels": np.array([1.0, 0, 0, 0, np.nan, 1]),
        "probabilities": np.array([0.004, 0.1, 0.2, 0.3, 0.4, 0.45]),
        "disagreeing": ("epidural", "any"),
        "pictures": tuple(ReviewPicture(hu[i], 6 + i, i - 1, names[i]) for i in range(3)),
        "sop_uid": "1.2.3",
        "series_uid": "1.2",
        "flags": "uneven_spacing tilt",
    }
    return ReviewCase(**{**values, **changes})


def make_page(*cases: ReviewCase, **changes: Any) -> str:
    return review_page(cases, **{"facts": {"Model": "net <1>"}, "disagreeing": {"slice": 1234}, **changes})


def shown(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.partition("<body>")[2]))


def test_why_a_slice_is_here():
    text = shown(make_page(make_case()))
    for wanted in (
        "1 slice to review",
        "the worst 1 of 1,234",
        "Slice 7 of 20",
        "uneven spacing, tilt",
        "Epidural is labelled present, but the model&#39;s probability is &lt;1 %",
        "Any hemorrhage is labelled present, but the model&#39;s probability is 45 %",
        "net &lt;1&gt;",
    ):
        assert wanted in text
    assert re.search(r"Subdural unknown +40", text)


def test_pictures_are_in_the_brain_window_the_upper_one_first():
    codes = re.findall(r'src="data:image/png;base64,([^"]+)"', make_page(make_case()))
    grey = [cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_UNCHANGED).mean() for code in codes]
    assert grey == [128, 191, 64]


def test_every_label_can_be_ticked():
    page = Page(make_page(make_case(), make_case(level="scan", sop_uid="")))
    radios = [tag for tag in page.all("input") if tag["type"] == "radio"]
    names = [f"{level}-1-{label}" for level in ("slice", "scan") for label in LABELS]
    assert [radio["name"] for radio in radios] == [name for name in names for _ in range(4)]
    assert {radio["value"] for radio in radios} == {"", "1", "0", "unsure"}
    # Nothing is corrected unless it is ticked.
    assert [radio["value"] for radio in radios if "checked" in radio] == [""] * len(names)
    assert [(tag["data-sop"], tag["data-series"]) for tag in page.all("article")] == [("1.2.3", "1.2"), ("", "1.2")]


@pytest.mark.parametrize(
    ("flags", "marks"),
    [("", ["R", "L"]), ("tilt", ["R", "L"]), ("tilt no_orientation", ["R?", "L?"]), ("no_orientation", ["R?", "L?"])],
)
def test_the_slice_in_question_says_which_side_is_which(flags: str, marks: list[str]):
    case = make_case(flags=flags)
    html = make_page(case)
    assert re.findall(r'<span class="side" title="The patient\'s (?:right|left)">([^<]*)', html) == marks
    hidden = tuple(picture._replace(hu=None) for picture in case.pictures)
    assert 'class="side"' not in make_page(case._replace(pictures=hidden))


def test_the_shareable_page_is_to_be_looked_at():
    case = make_case()
    hidden = tuple(picture._replace(hu=None) for picture in case.pictures[:2])
    html = make_page(case._replace(pictures=(*hidden, case.pictures[2])), is_private=False)
    page = Page(html)
    assert "1.2.3" not in html
    assert not page.all("script")
    assert not page.all("input")
    assert len(page.all("img")) == 1


@pytest.mark.parametrize("is_private", [True, False])
def test_the_page_fetches_nothing(is_private: bool):
    html = make_page(make_case(), is_private=is_private)
    page = Page(html)
    policies = [tag["content"] for tag in page.all("meta") if "http-equiv" in tag]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")
    addresses = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href") and value]
    assert all(address.startswith("data:") for address in addresses)
    assert "http" not in html.replace("http-equiv", "")


def test_names_cannot_break_out_of_the_page():
    html = make_page(make_case(sop_uid='"><script>alert(1)</script>', flags="<b>"))
    assert "<script>alert" not in html
    assert Page(html).all("article")[0]["data-sop"] == '"><script>alert(1)</script>'


def test_agreement():
    html = make_page(disagreeing={})
    Page(html)
    assert "Model and labels agree" in shown(html)
    assert "<script" not in html
