import base64
import json
import re
import zlib
from collections import Counter
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

import ich_lstm
from ich_lstm.labels import LABEL_NAMES, LABELS
from ich_lstm.pages.scan_page import FLAG_MEANINGS, NOT_SHOWN, prediction_page
from ich_lstm.pages.stack import encode_stack
from ich_lstm.prediction import CalibratedProbabilities, OperatingPoint
from ich_lstm.scan import Note

PICTURE = re.compile(r'src="data:image/png;base64,([^"]+)"')
VOID = {"meta", "link", "img", "input", "br", "line", "polyline", "polygon"}


class Page(HTMLParser):
    """The tags, ids, references and shown texts of a page; fails on tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def values(self, name: str) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get(name)) is not None]


def pictures(html: str) -> list[np.ndarray]:
    return [cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED) for text in PICTURE.findall(html)]


def viewer_data(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def unpack(text: str, shape: tuple[int, int]) -> np.ndarray:
    """What `encode_hu` has packed, by its words and one value after another."""
    data, (rows, columns) = zlib.decompress(base64.b64decode(text)), shape
    hu = np.zeros(shape, int)
    for y in range(rows):
        for x in range(columns):
            folded = data[y * columns + x] + 256 * data[rows * columns + y * columns + x]
            difference = folded // 2 if folded % 2 == 0 else -(folded + 1) // 2
            left, upper = hu[y, x - 1], hu[y - 1, x]
            expected = (left + upper) // 2 if x and y else left if x else upper if y else 0
            hu[y, x] = (expected + difference + 32768) % 65536 - 32768
    return hu


class TestSelfContained:
    def test_refers_to_nothing_outside(self, make_prediction):
        html = prediction_page(make_prediction())
        page = Page(html)
        for reference in page.values("src") + page.values("href"):
            assert reference.startswith(("data:", "#")), reference
        assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest|WebSocket", html)
        assert any("default-src 'none'" in content for content in page.values("content"))

    def test_every_link_leads_somewhere_and_ids_are_unique(self, make_prediction):
        page = Page(prediction_page(make_prediction()))
        ids = Counter(page.values("id"))
        assert set(ids.values()) == {1}
        assert {link[1:] for link in page.values("href") if link.startswith("#")} <= set(ids)

    def test_forty_noisy_slices_stay_below_15_mb(self, make_prediction):
        # Within an ellipse noise of 5 HU, more than most scanners leave; around it air, with less.
        draw = np.random.default_rng(0)
        y, x = np.mgrid[:512, :512]
        inside = ((y - 256) / 230) ** 2 + ((x - 256) / 180) ** 2 < 1
        four = np.where(inside, draw.normal(30, 5, (4, 512, 512)), draw.normal(-1000, 4, (4, 512, 512))).clip(-1024)
        assert len(prediction_page(make_prediction(40, hu=np.tile(four.round().astype(np.int16), (10, 1, 1))))) < 15e6


def decoded(html: str, prediction) -> list[np.ndarray | None]:
    """The HU of each slice, unpacked as the words of `encode_hu` say, one value after another."""
    stored = dict(re.findall(r'<script type="text/plain" id="hu-(\d+)">([^<]*)</script>', html))
    return [unpack(stored[str(i)], prediction.hu.shape[1:]) if str(i) in stored else None for i in range(len(prediction))]


class TestSlices:
    @pytest.mark.parametrize("count", [1, 5, 60])
    def test_each_is_stored_without_loss(self, make_prediction, count):
        hu = np.random.default_rng(count).integers(-1024, 3072, (count, 9, 7)).astype(np.int16)
        prediction = make_prediction(count, hu=hu)
        np.testing.assert_array_equal(decoded(prediction_page(prediction), prediction), hu)

    def test_small_pictures_of_all_and_a_large_one_of_key_slices(self, make_prediction):
        hu = np.zeros((5, 600, 300), np.int16)
        shapes = [picture.shape for picture in pictures(prediction_page(make_prediction(hu=hu)))]
        assert sorted(shapes) == [(128, 64)] * 5 + [(512, 256)] * 2  # "any" in slice 3, subdural in slice 5

    def test_key_slices_are_marked(self, make_prediction):
        page = Page(prediction_page(make_prediction()))
        assert [attrs["id"] for tag, attrs in page.tags if "data-key" in attrs] == ["slice-3", "slice-5"]
        assert re.search(r"Key slices 3 Any 90 % 5 SDH 62 %", page.text.replace("\xa0", " "))

    def test_captions_tell_any(self, make_prediction):
        text = Page(prediction_page(make_prediction())).text.replace("\xa0", " ")
        assert re.search(r"1 30 % 2 45 % Any 3 90 %", text)

    def test_equal_positions(self, make_prediction):
        Page(prediction_page(make_prediction(positions_mm=np.zeros(5))))

    def test_what_is_too_large_is_halved_and_the_page_says_so(self, make_prediction, monkeypatch):
        monkeypatch.setattr("ich_lstm.pages.scan_page.encode_stack", partial(encode_stack, most_text=3000))
        hu = np.random.default_rng(0).integers(0, 80, (5, 32, 32)).astype(np.int16)
        html = prediction_page(make_prediction(hu=hu))
        assert "1/2 of its resolution; each value is the mean of 2 × 2 pixels" in Page(html).text
        assert '"stored": [16, 16]' in html
        assert "of its resolution" not in prediction_page(make_prediction())


class TestNotShown:
    def test_nothing_of_a_hidden_slice_is_in_the_page(self, make_prediction):
        reason = "Text is burned into it <b>"
        prediction = make_prediction()
        html = prediction_page(prediction, blank_reasons={2: reason})
        assert [hu is None for hu in decoded(html, prediction)] == [False, False, True, False, False]
        assert len(pictures(html)) == 4 + 1  # all others, and the other key slice at full size
        assert Page(html).text.count(reason) == 1
        assert viewer_data(html)["blanks"] == {"2": reason}

    def test_air_alone_is_said_to_be_not_shown(self, make_prediction):
        hu = make_prediction().hu.copy()
        hu[1] = -1024
        assert viewer_data(prediction_page(make_prediction(hu=hu)))["blanks"] == {"1": NOT_SHOWN}

    def test_a_slice_that_is_not_there(self, make_prediction):
        with pytest.raises(ValueError, match="blank_reasons"):
            prediction_page(make_prediction(), blank_reasons={5: "x"})

    def test_a_notice_is_shown(self, make_prediction):
        assert "Cropped to the cavity" in Page(prediction_page(make_prediction(), notice="Cropped to the cavity")).text


class TestHeatMaps:
    def test_the_positive_types_together_at_first(self, make_prediction, make_explanation):
        html = prediction_page(make_prediction(explanation=make_explanation()))
        pressed = {attrs["data-heat"]: attrs["aria-pressed"] for _, attrs in Page(html).tags if "data-heat" in attrs}
        assert pressed == {"subarachnoid": "false", "subdural": "true", "any": "false"}
        assert viewer_data(html)["heat"]["shown"] == ["subdural"]
        assert "positive at a probability of 50\xa0% or more: subdural" in html

    def test_none_is_positive(self, make_prediction, make_explanation):
        probabilities = np.full(6, 0.2)
        page = Page(prediction_page(make_prediction(scan_probabilities=probabilities, explanation=make_explanation())))
        assert {attrs["aria-pressed"] for _, attrs in page.tags if "data-heat" in attrs} == {"false"}
        assert "no explained label is positive, so no heat map is shown" in page.text

    def test_what_they_are_and_are_not(self, make_prediction, make_explanation):
        text = Page(prediction_page(make_prediction(explanation=make_explanation(method="made <up>")))).text
        assert "made <up>." in text
        assert "does not outline blood" in text
        assert "none were requested" in Page(prediction_page(make_prediction())).text

    def test_a_bar_per_slice_as_long_as_its_contribution(self, make_prediction, make_explanation):
        page = Page(prediction_page(make_prediction(explanation=make_explanation())))
        (path,) = (attrs for tag, attrs in page.tags if attrs.get("data-adds") == "subdural")
        heights = [-float(v) for v in re.findall(r"v([-\d.]+)", path["d"])]
        np.testing.assert_allclose(heights, 50 * np.array([-1, -0.5, 0, 0.5, 1]), atol=0.01)
        assert path["data-largest"] == "2"


class TestContents:
    def test_says_what_it_is_and_what_it_is_not(self, make_prediction):
        text = Page(prediction_page(make_prediction())).text
        for wanted in (
            "7f3a19c04be2d851",
            "demo",
            "c0ffee12ab34cd56",
            "no; probabilities are the model's own",
            "18.5",
            "Research use only, not for diagnosis.",
            *LABEL_NAMES.values(),
        ):
            assert wanted in text

    def test_flags_are_explained(self, make_prediction):
        text = Page(prediction_page(make_prediction())).text
        assert "15 mm between slices 3 and 4" in text
        assert FLAG_MEANINGS["gap"] in text
        assert "padding of -1500 replaced by air" in text

    def test_every_flag_that_reading_raises_is_explained(self):
        sources = (Path(ich_lstm.__file__).parent / "reading").rglob("*.py")
        raised = {code for path in sources for code in re.findall(r'(?:\.flag\(|yield Note\()\s*"(\w+)"', path.read_text())}
        assert len(raised) > 20
        assert raised - set(FLAG_MEANINGS) == set()

    def test_doubtful_sides_and_ends_are_marked(self, make_prediction):
        page = Page(prediction_page(make_prediction(flags=(Note("no_orientation", ""), Note("order_assumed", "")))))
        for mark in ("R?", "L?", "inferior?", "superior?"):
            assert f" {mark} " in page.text
        assert "?" not in Page(prediction_page(make_prediction())).text

    def test_no_flags_no_section(self, make_prediction):
        assert "Notes on this scan" not in prediction_page(make_prediction(flags=(), repairs=()))

    def test_texts_stay_text(self, make_prediction, make_explanation):
        bad = '"><script>alert(1)</script></script><img src=x onerror=alert(2)>{{ 7 * 7 }}'
        notes = (Note("tilt", bad), Note(bad, bad))
        point = OperatingPoint(bad, np.full(6, 0.5), np.full(6, 0.5), bad)
        changes = {
            "scan_id": bad,
            "slice_ids": (bad,) * 5,
            "patient_id": bad,
            "flags": notes,
            "repairs": notes[:1],
            "model_name": bad,
            "model_hash": bad,
            "calibrated": CalibratedProbabilities(np.full((5, 6), 0.5), np.full(6, 0.5), bad),
            "operating_point": point,
            "explanation": make_explanation(method=bad),
        }
        plain = {name: "x" if value == bad else value for name, value in changes.items()} | {"flags": (), "repairs": ()}
        counts = []
        for fields, text in ((changes, bad), (plain, "x")):
            page = Page(prediction_page(make_prediction(**fields), title=text, notice=text, blank_reasons={0: text}))
            counts.append(Counter(tag for tag, _ in page.tags if tag in ("script", "img")))
            assert not page.values("onerror")
            assert text in page.text
        assert counts[0] == counts[1]

    def test_ids_of_slices_and_patient_are_not_in_it(self, make_prediction):
        prediction = make_prediction(slice_ids=tuple(f"secret{i}" for i in range(5)), patient_id="secret")
        assert "secret" not in prediction_page(prediction)

    def test_the_scripts_data_match(self, make_prediction):
        prediction = make_prediction()
        data = viewer_data(prediction_page(prediction))
        assert data["labels"] == list(LABELS)
        assert data["first"] == 2
        np.testing.assert_allclose(data["probabilities"], prediction.slice_probabilities, atol=1e-5)
        assert data["positions"] == [0, 0.25, 0.5, 0.75, 1]


class TestOperatingPoint:
    def test_marks_stand_where_the_thresholds_are(self, make_prediction):
        thresholds = np.array([np.nan, 0.1, 0.2, 0.3, 0.4, 0.5])
        point = OperatingPoint("youden", thresholds / 2, thresholds, "validation patients")
        corrected = np.where(np.isnan(thresholds), np.nan, 0.33)
        calibrated = CalibratedProbabilities(np.tile(corrected, (5, 1)), corrected, "platt per label")
        page = Page(prediction_page(make_prediction(operating_point=point, calibrated=calibrated)))
        marks = [attrs["style"] for tag, attrs in page.tags if tag == "u"]
        expected = [value for k in (5, 1, 2, 3, 4) for value in (thresholds[k], thresholds[k] / 2)]
        assert marks == [f"--p:{value:.4f}" for value in expected]
        assert "Operating point youden, chosen on validation patients" in page.text
        assert "called positive: subdural, any hemorrhage; no threshold for epidural" in page.text
        assert "any hemorrhage 33 %" in page.text
        assert "epidural not calibrated" in page.text

    def test_tells_how_it_did_where_it_was_chosen(self, make_prediction):
        thresholds = np.array([np.nan, 0.1, 0.2, 0.3, 0.4, 0.5])
        sensitivity = np.tile([0.95, 0.9, 0.98], (6, 1))
        specificity = np.tile([0.8, np.nan, np.nan], (6, 1))
        sensitivity[1] = np.nan
        point = OperatingPoint("youden", thresholds, thresholds, "validation patients", sensitivity, specificity)
        text = Page(prediction_page(make_prediction(operating_point=point))).text.replace("\xa0", " ")
        assert "Positive at 40 %: sensitivity 95 % (90 to 98), specificity 80 %" in text
        assert "Negative at 10 %: sensitivity unknown, specificity 80 %" in text
        assert len(re.findall("(?:Positive|Negative) at", text)) == 5

    def test_without_one_there_is_no_mark(self, make_prediction):
        page = Page(prediction_page(make_prediction()))
        assert not any(tag == "u" for tag, _ in page.tags)
        assert "called positive:" not in page.text
