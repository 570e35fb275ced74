import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from ich_lstm.pages.index_page import IndexRow, encode_thumbnail, index_page

ROW = IndexRow(1, "7f3a", "Study 7", "ok", "", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), ("subdural", "any"), ("tilt",), "pages/7f3a.html")
REFUSED = IndexRow(None, "0c1d", "", "gap", "30 mm between slices 3 and 4", None)


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.quiet = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.quiet = tag in ("script", "style")

    def handle_data(self, data):
        if not self.quiet:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def test_by_urgency_and_the_refused_last():
    rows = [REFUSED, *(ROW._replace(rank=rank, scan_id=f"scan{rank}", title="") for rank in (3, 1, 2))]
    shown = [attrs["data-title"] for tag, attrs in Page(index_page(rows, title="List")).tags if "data-title" in attrs]
    assert shown == ["scan1", "scan2", "scan3", "0c1d"]


def test_each_row_tells_its_result_or_why_there_is_none():
    page = Page(index_page([ROW, REFUSED], title="List", facts={"Model": "demo"}, notes=("A note.",)))
    text = page.text.replace("\u00a0", " ")
    for wanted in ("Study 7", "7f3a", "subdural, any hemorrhage", "60 %", "tilt", "30 mm between", "Model demo", "A note."):
        assert wanted in text
    assert "Studies 2 With a result 1 Without a result 1 Called positive (+) 1" in text
    assert "Research use only, not for diagnosis." in text
    called = [attrs["style"] for tag, attrs in page.tags if "is-called" in (attrs.get("class") or "")]
    assert called == ["--p:0.6000", "--p:0.5000"]
    assert [attrs["href"] for tag, attrs in page.tags if tag == "a"] == ["pages/7f3a.html"]


def test_refers_to_nothing_outside():
    html = index_page([ROW], title="List")
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest|WebSocket", html)
    assert "default-src 'none'" in html


def test_texts_stay_text():
    bad = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    row = IndexRow(None, bad, bad, bad, bad, None, (), (bad,), "")
    page = Page(index_page([row], title=bad, facts={bad: bad}, notes=(bad,)))
    assert Counter(tag for tag, _ in page.tags if tag in ("script", "img")) == {"script": 1}
    assert bad in page.text


@pytest.mark.parametrize(
    "change",
    [
        {"page": "javascript:alert(1)"},
        {"page": "https://example.org/"},
        {"page": "//example.org/"},
        {"page": "/etc/passwd"},
        {"called": ("stroke",)},
        {"probabilities": (0.1,)},
    ],
)
def test_refuses_what_does_not_fit(change):
    with pytest.raises(ValueError, match="IndexRow"):
        index_page([ROW._replace(**change)], title="List")


@pytest.mark.parametrize(
    ("has_operating_point", "words"),
    [(True, "none reaches its operating point"), (False, "the model has no operating point"), (None, "in any study .")],
)
def test_why_nothing_is_called_is_known(has_operating_point: bool | None, words: str) -> None:
    html = index_page([ROW._replace(called=())], title="List", has_operating_point=has_operating_point)
    text = Page(html).text
    assert "No label is called positive" in text
    assert words.rstrip(" .") in text
    assert ("operating point" in text) == (has_operating_point is not None)


def test_no_rows():
    assert "Studies 0" in Page(index_page([], title="List")).text


def test_thumbnail_is_small_and_none_of_air(make_prediction):
    row = ROW._replace(thumbnail=encode_thumbnail(make_prediction(size=512)))
    assert len(row.thumbnail) < 4000
    assert sum(tag == "img" for tag, _ in Page(index_page([row, REFUSED], title="List")).tags) == 1
    assert encode_thumbnail(make_prediction(hu=np.full((5, 8, 8), -1024, np.int16))) == ""
