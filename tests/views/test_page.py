import base64
import html as html_text
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

import ich_lstm
from ich_lstm.labels import LABELS
from ich_lstm.scan import Note
from ich_lstm.views.look import LABEL_NAMES
from ich_lstm.views.page import FLAG_MEANINGS, prediction_page
from ich_lstm.views.prediction import CalibratedProbabilities, OperatingPoint

PICTURE = re.compile(r'src="data:image/png;base64,([^"]+)"')
VOID = {"meta", "link", "img", "input", "br", "line", "polyline", "polygon"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

QUIET_CHROMIUM = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


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

    def test_forty_slices_of_noise_stay_below_15_mb(self, make_prediction):
        # The worst case for a picture without loss; real slices are about a quarter of it.
        hu = np.random.default_rng(0).integers(0, 80, (40, 512, 512)).astype(np.int16)
        assert len(prediction_page(make_prediction(40, hu=hu))) < 15e6


class TestSlices:
    @pytest.mark.parametrize("count", [1, 5, 60])
    def test_each_is_stored_once_in_order_and_in_the_brain_window(self, make_prediction, count):
        prediction = make_prediction(count)
        shown = pictures(prediction_page(prediction))
        assert len(shown) == count
        for picture, hu in zip(shown, prediction.hu, strict=True):
            assert picture.dtype == np.uint8
            assert picture.ndim == 2
            np.testing.assert_array_equal(picture, np.rint(hu * (255 / 80)))

    def test_outside_the_window_is_black_or_white(self, make_prediction):
        hu = np.array([-1024, 0, 40, 80, 3071], np.int16)[:, None, None].repeat(8, 1).repeat(8, 2)
        assert [int(picture[0, 0]) for picture in pictures(prediction_page(make_prediction(hu=hu)))] == [0, 0, 128, 255, 255]

    @pytest.mark.parametrize(
        ("shape", "spacing", "expected"),
        [
            ((512, 512), (0.5, 0.5), (512, 512)),
            ((768, 768), (0.3, 0.3), (512, 512)),
            ((600, 300), (0.5, 0.5), (512, 256)),
            ((64, 64), (1.0, 0.5), (128, 64)),
            ((64, 64), (0.0, 0.0), (64, 64)),
        ],
    )
    def test_size_is_true_to_the_pixel_spacing_and_bounded(self, make_prediction, shape, spacing, expected):
        prediction = make_prediction(1, hu=np.zeros((1, *shape), np.int16), spacing_mm=(5.0, *spacing))
        assert pictures(prediction_page(prediction))[0].shape == expected

    def test_the_three_highest_are_marked(self, make_prediction):
        page = Page(prediction_page(make_prediction()))
        marked = {attrs["id"]: attrs["data-rank"] for tag, attrs in page.tags if tag == "a" and "data-rank" in attrs}
        assert marked == {"slice-3": "1", "slice-2": "2", "slice-4": "3"}

    def test_captions_tell_any(self, make_prediction):
        text = Page(prediction_page(make_prediction())).text.replace("\xa0", " ")
        assert re.search(r"1 30 % 2 45 % 1st|1 30 % 2nd 2 45 %", text)

    def test_equal_positions(self, make_prediction):
        Page(prediction_page(make_prediction(positions_mm=np.zeros(5))))


class TestContents:
    def test_says_what_it_is_and_what_it_is_not(self, make_prediction):
        text = Page(prediction_page(make_prediction())).text
        for wanted in (
            "7f3a19c04be2d851",
            "demo",
            "c0ffee12",
            "18.5",
            "Research use only, not for diagnosis.",
            *LABEL_NAMES.values(),
        ):
            assert wanted in text
        assert "ab34cd56" not in text

    def test_flags_are_explained(self, make_prediction):
        text = Page(prediction_page(make_prediction())).text
        assert "15 mm between slices 3 and 4" in text
        assert FLAG_MEANINGS["gap"] in text
        assert "padding of -1500 replaced by air" in text

    def test_every_flag_that_reading_raises_is_explained(self):
        sources = (Path(ich_lstm.__file__).parent / "reading").glob("*.py")
        raised = {code for path in sources for code in re.findall(r'(?:\.flag\(|yield Note\()\s*"(\w+)"', path.read_text())}
        assert raised - set(FLAG_MEANINGS) == set()

    def test_doubtful_sides_and_ends_are_marked(self, make_prediction):
        page = Page(prediction_page(make_prediction(flags=(Note("no_orientation", ""), Note("order_assumed", "")))))
        for mark in ("R?", "L?", "inferior?", "superior?"):
            assert f" {mark} " in page.text
        assert "?" not in Page(prediction_page(make_prediction())).text

    def test_no_flags_no_section(self, make_prediction):
        assert "What to know" not in prediction_page(make_prediction(flags=(), repairs=()))

    def test_texts_stay_text(self, make_prediction):
        bad = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
        plain = Page(prediction_page(make_prediction()))
        notes = (Note("tilt", bad), Note(bad, bad))
        prediction = make_prediction(flags=notes, repairs=notes[:1], model_name=bad, scan_id=bad, model_hash=bad)
        page = Page(prediction_page(prediction, title=bad))
        assert bad in page.text
        count = Counter(tag for tag, _ in page.tags)
        assert (count["script"], count["img"]) == (2, Counter(tag for tag, _ in plain.tags)["img"])
        assert not page.values("onerror")

    def test_the_scripts_data_match(self, make_prediction):
        prediction = make_prediction()
        html = prediction_page(prediction)
        data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])
        assert data["labels"] == list(LABELS)
        assert data["first"] == 2
        np.testing.assert_allclose(data["probabilities"], prediction.slice_probabilities, atol=1e-5)
        assert data["positions"] == [0, 0.25, 0.5, 0.75, 1]


DRIVER = """
<script>
addEventListener("load", async () => {
  const said = {}, byId = (id) => document.getElementById(id);
  const settle = () => new Promise((done) => setTimeout(done, 30));
  // A canvas of its own to read from: reading from the page's would make Chromium advise against it.
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const look = async (name) => {
    await settle();
    const marked = [...document.querySelectorAll('.thumb[aria-current="true"]')].map((thumb) => thumb.id);
    probe.drawImage(byId("canvas"), 0, 0);
    const pixel = probe.getImageData(5, 5, 1, 1).data[0];
    said[name] = { slice: Number(byId("slider").value), marked, pixel, readout: byId("readout").textContent };
  };
  const press = (key, target) => target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const plot = byId("plot"), box = plot.getBoundingClientRect();
  await look("start");
  press("ArrowRight", document.body); await look("right");
  press("ArrowDown", document.body); await look("down outside the viewer");
  press("End", byId("stage")); await look("end");
  press("ArrowRight", document.body); await look("past the end");
  press("Home", byId("slider")); await look("home");
  byId("next").click(); await look("next");
  byId("stage").dispatchEvent(new WheelEvent("wheel", { deltaY: 100, bubbles: true, cancelable: true })); await look("wheel");
  byId("slider").value = 2; byId("slider").dispatchEvent(new Event("input")); await look("slider");
  plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + 0.74 * box.width, buttons: 1 })); await look("curve");
  byId("slice-1").click(); await look("thumb");
  document.querySelector('.row[data-label="subdural"]').click(); await look("label");
  said.thumbs = [...document.querySelectorAll(".thumb b")].map((cell) => cell.textContent);
  said.wide = document.documentElement.scrollWidth > innerWidth;
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = JSON.stringify(said);
  document.body.append(result);
});
</script>
"""


def browse(page: Path, profile: Path, width: int = 1400) -> tuple[dict, str]:
    """Run a page with the driver in headless Chromium; what it saw, and what the console said."""
    command = [
        str(CHROMIUM),
        *QUIET_CHROMIUM,
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        "--enable-logging=stderr",
        "--virtual-time-budget=10000",
        f"--user-data-dir={profile}",
        f"--window-size={width},900",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return json.loads(html_text.unescape(found[1])), console


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
        assert "any hemorrhage 33\u00a0%".replace("\u00a0", " ") in page.text
        assert "epidural not calibrated" in page.text

    def test_without_one_there_is_no_mark(self, make_prediction):
        page = Page(prediction_page(make_prediction()))
        assert not any(tag == "u" for tag, _ in page.tags)
        assert "called" not in page.text


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the path")
class TestInBrowser:
    def test_keys_wheel_curve_and_clicks_move_the_selection(self, make_prediction, tmp_path):
        page = tmp_path / "page.html"
        page.write_text(prediction_page(make_prediction()).replace("</body>", DRIVER + "</body>"), encoding="utf-8")
        said, console = browse(page, tmp_path / "profile")
        assert console == ""
        expected = {
            "start": 3,
            "right": 4,
            "down outside the viewer": 4,
            "end": 5,
            "past the end": 5,
            "home": 1,
            "next": 2,
            "wheel": 3,
            "slider": 2,
            "curve": 4,
            "thumb": 1,
            "label": 1,
        }
        assert {name: said[name]["slice"] for name in expected} == expected
        for name, number in expected.items():
            assert said[name]["marked"] == [f"slice-{number}"], name
            assert said[name]["pixel"] == round((9 + number) * 255 / 80), name  # the slice itself is on the canvas
        assert said["start"]["readout"].replace("\xa0", " ") == "slice 3, 2.5 mm: 90 %"
        assert [text.replace("\xa0", " ") for text in said["thumbs"]] == ["2 %", "17 %", "32 %", "47 %", "62 %"]

    @pytest.mark.parametrize(("count", "width"), [(1, 1400), (40, 500)])
    def test_no_console_errors_and_no_sideways_scrolling(self, make_prediction, tmp_path, count, width):
        page = tmp_path / "page.html"
        page.write_text(prediction_page(make_prediction(count)).replace("</body>", DRIVER + "</body>"), encoding="utf-8")
        said, console = browse(page, tmp_path / "profile", width)
        assert console == ""
        assert not said["wide"]
