"""The pages as a reader uses them: in headless Chromium, with a real mouse, keyboard and finger."""

import base64
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prediction_files import make_tables
from report_files import write_study

from ich_lstm.evaluation.comparisons.compare import compare_encoder
from ich_lstm.evaluation.comparisons.strata import evaluate_strata, find_strata
from ich_lstm.evaluation.evidence import read_run
from ich_lstm.evaluation.figures import compute_figures
from ich_lstm.evaluation.protocols import all_figures
from ich_lstm.evaluation.report.contents import Supplements
from ich_lstm.evaluation.report.write import build_report
from ich_lstm.evaluation.run_facts import read_study
from ich_lstm.labels import LABELS
from ich_lstm.pages.index_page import IndexRow, index_page
from ich_lstm.pages.plots.curves import plot_history, save_figure
from ich_lstm.pages.review_page import ReviewCase, ReviewPicture, review_page
from ich_lstm.pages.scan_page import prediction_page
from ich_lstm.pages.style import HEAT_COLORS
from ich_lstm.scan import Note
from ich_lstm.statistics import FigureSettings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
if CHROMIUM is None:
    pytest.skip("needs a Chromium on the path", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
LAPTOP = {"width": 1280, "height": 900}
A4 = {"width": 688, "height": 1017}
"""In CSS pixels, less margins of 14 mm."""

BEYOND = """
() => [...document.querySelectorAll("main *")]
  .filter((one) => one.getClientRects().length && !one.closest(".hidden-text"))
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => one.outerHTML.slice(0, 80))
"""

READ = """
async (id) => {
  const source = document.getElementById(id), probe = document.createElement("canvas");
  [probe.width, probe.height] = [source.width, source.height];
  // A canvas of its own to read from: reading from the page's would make Chromium advise against it.
  const context = probe.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  const bytes = context.getImageData(0, 0, probe.width, probe.height).data;
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return [probe.height, probe.width, btoa(text)];
}
"""
SETTLE = """
async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  do { await frame(); await frame(); } while (document.querySelector('#stage[aria-busy="true"]'));
}
"""


class Viewer:
    """A page of one scan in the browser."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def settle(self) -> "Viewer":
        self.page.evaluate(SETTLE)
        return self

    @property
    def slice(self) -> int:
        """Its number as the picture tells it; all that show it must agree."""
        self.settle()
        number = int(self.text("#which").split(" of ")[0])
        assert int(self.page.input_value("#slider")) == number
        assert self.page.get_attribute("#plot", "aria-valuenow") == str(number)
        assert self.page.eval_on_selector_all('.thumb[aria-current="true"]', "found => found.map(one => one.id)") == [
            f"slice-{number}"
        ]
        return number

    def text(self, selector: str) -> str:
        return self.page.text_content(selector).replace("\u00a0", " ")

    def read(self, canvas: str) -> np.ndarray:
        """RGBA ``(h, w, 4)``."""
        self.settle()
        height, width, values = self.page.evaluate(READ, canvas)
        return np.frombuffer(base64.b64decode(values), np.uint8).reshape(height, width, 4)

    def press(self, key: str) -> "Viewer":
        self.page.keyboard.press(key)
        return self.settle()

    def drag(self, selector: str, start: tuple[float, float], by: tuple[float, float]) -> "Viewer":
        """With the mouse, from a place in parts of the element, by pixels."""
        box = self.page.locator(selector).bounding_box()
        x, y = box["x"] + start[0] * box["width"], box["y"] + start[1] * box["height"]
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + by[0] / 2, y + by[1] / 2)
        self.page.mouse.move(x + by[0], y + by[1])
        self.page.mouse.up()
        return self.settle()

    def pressed(self, selector: str) -> list[str]:
        return self.page.eval_on_selector_all(
            f'{selector}[aria-pressed="true"]', "found => found.map(one => one.dataset.heat || one.textContent)"
        )

    @property
    def is_too_wide(self) -> bool:
        return self.page.evaluate("document.documentElement.scrollWidth > innerWidth")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(browser: Any) -> Callable[..., Any]:
    """A tab for each kind of screen, opened once: a new one for each page takes as long as all the rest."""

    @cache
    def tab(screen: tuple[tuple[str, int], ...], options: tuple[tuple[str, Any], ...]) -> Any:
        return browser.new_context(viewport=dict(screen), **dict(options)).new_page()

    return lambda viewport, options: tab(tuple(viewport.items()), tuple(options.items()))


@pytest.fixture
def show(tab: Callable[..., Any], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens pages and keeps the latest page of each kind of screen. No page may send a request or write to the console."""
    asked, complaints, tabs = [], [], []
    paths: list[Path] = []

    def is_foreign(url: str) -> bool:
        own = [path.as_uri() for path in paths]
        return url not in own and not url.startswith((*(f"{page}#" for page in own), "data:"))

    def guard(route: Any) -> None:
        asked.append(route.request.url)
        route.abort()

    def listen(message: Any) -> None:
        complaints.append(message.text)

    def catch(error: Any) -> None:
        complaints.append(str(error))

    def show(html: str, viewport: dict[str, int] = WIDE, **options: Any) -> Any:
        paths.append(tmp_path / f"page{len(paths)}.html")
        paths[-1].write_text(html, encoding="utf-8")
        page = tab(viewport, options)
        if page not in tabs:
            tabs.append(page)
            page.route(is_foreign, guard)
            page.on("console", listen)
            page.on("pageerror", catch)
        page.goto(paths[-1].as_uri())
        return page

    yield show
    for page in tabs:
        page.goto("about:blank")  # what the page would still say, it has said by now
        page.unroute_all()
        page.remove_listener("console", listen)
        page.remove_listener("pageerror", catch)
        page.emulate_media(media="null")
        page.mouse.move(0, 0)
    assert asked == []
    assert complaints == []


@pytest.fixture
def view(show: Callable[..., Any]) -> Callable[..., Viewer]:
    def view(prediction: Any, viewport: dict[str, int] = WIDE, *, options: Any = None, **changes: Any) -> Viewer:
        return Viewer(show(prediction_page(prediction, **changes), viewport, **(options or {}))).settle()

    return view


def grey(hu: np.ndarray, level: float, width: float) -> np.ndarray:
    """DICOM LINEAR_EXACT in 8 bit, written down a second time."""
    return np.rint(np.clip((hu.astype(float) - (level - width / 2)) / width, 0, 1) * 255).astype(np.uint8)


def random_hu(count: int = 5, size: int = 32) -> np.ndarray:
    return np.random.default_rng(7).integers(-1024, 3072, (count, size, size)).astype(np.int16)


class TestScrolling:
    def test_wheel_keys_slider_buttons_and_thumbnails(self, view, make_prediction):
        viewer = view(make_prediction())
        page = viewer.page
        assert viewer.slice == 3
        page.hover("#stage")
        page.mouse.wheel(0, 100)
        assert viewer.slice == 4
        page.mouse.wheel(0, -100)
        assert viewer.slice == 3
        assert viewer.press("ArrowRight").slice == 4
        assert viewer.press("ArrowDown").slice == 4  # outside of the viewer it scrolls the page
        page.focus("#stage")
        assert viewer.press("ArrowDown").slice == 5
        assert viewer.press("ArrowDown").slice == 5
        assert viewer.press("Home").slice == 1
        assert viewer.press("PageDown").slice == 5
        page.focus("#slider")
        assert viewer.press("ArrowDown").slice == 4  # on a slider down is less
        page.fill("#slider", "2")
        assert viewer.slice == 2
        page.click("#next")
        assert viewer.slice == 3
        page.click("#slice-1")
        assert viewer.slice == 1
        page.click('.keys a[data-slice="4"]')
        assert viewer.slice == 5

    def test_the_curve_is_a_slider(self, view, make_prediction):
        viewer = view(make_prediction())
        plot = viewer.page.locator("#plot")
        assert (plot.get_attribute("role"), plot.get_attribute("aria-valuemax")) == ("slider", "5")
        width = plot.bounding_box()["width"]
        viewer.drag("#plot", (0.1, 0.5), (0.65 * width, 0))
        assert viewer.slice == 4
        viewer.press("ArrowUp")  # the drag has given it the focus
        assert viewer.slice == 5
        assert viewer.press("Home").slice == 1
        assert "Slice 1, −7.5 mm, Any hemorrhage 30 %" in plot.get_attribute("aria-valuetext").replace("\u00a0", " ")
        viewer.page.click('.row[data-label="subdural"]')
        assert "Subdural 2 %" in plot.get_attribute("aria-valuetext").replace("\u00a0", " ")
        assert viewer.page.eval_on_selector_all(".thumb b", "all => all.map(one => parseInt(one.textContent))") == [
            2,
            17,
            32,
            47,
            62,
        ]

    def test_swiping_moves_slices_and_two_fingers_do_not(self, view, make_prediction):
        viewer = view(make_prediction(9), NARROW, options={"has_touch": True})
        box = viewer.page.locator("#stage").bounding_box()
        session = viewer.page.context.new_cdp_session(viewer.page)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        def touch(kind: str, *fingers: tuple[float, float]) -> None:
            points = [{"x": x + right, "y": y + down, "id": number} for number, (right, down) in enumerate(fingers)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", (0, 0))
        for down in (-15, -30, -60):
            touch("touchMove", (0, down))
        touch("touchEnd")
        moved = viewer.slice
        assert moved == 5 + 2  # 28 pixels a slice
        assert viewer.text("#window") == "L 40 W 80"
        touch("touchStart", (0, 0), (20, 0))
        touch("touchMove", (0, -60), (20, -60))
        touch("touchEnd")
        assert viewer.slice == moved

    @pytest.mark.parametrize("count", [1, 300])
    def test_one_slice_and_three_hundred(self, view, make_prediction, make_explanation, count):
        hu = np.arange(count, dtype=np.int16)[:, None, None] % 80 + np.zeros((count, 16, 16), np.int16)
        viewer = view(make_prediction(count, hu=hu, explanation=make_explanation(count, size=16)))
        viewer.page.focus("#stage")
        assert viewer.press("End").slice == count
        assert viewer.read("canvas")[0, 0, 0] == grey(hu[-1], 40, 80)[0, 0]
        assert viewer.press("Home").slice == 1
        # More than are kept unpacked, and back.
        for _ in range(1, min(count, 27)):
            viewer.page.keyboard.press("ArrowRight")
        assert viewer.slice == min(count, 27)
        assert viewer.read("canvas")[3, 3, 0] == grey(hu[min(count, 27) - 1], 40, 80)[3, 3]
        assert not viewer.is_too_wide

    def test_a_slice_that_is_not_shown_says_why(self, view, make_prediction):
        viewer = view(make_prediction(), blank_reasons={2: "Text is burned in."})
        assert viewer.page.is_visible("#blank")
        assert viewer.text("#blank") == "Text is burned in."
        assert not viewer.page.is_visible("#canvas")
        viewer.press("ArrowRight")
        assert not viewer.page.is_visible("#blank")
        assert viewer.page.is_visible("#canvas")


class TestWindow:
    def test_buttons_and_keys(self, view, make_prediction):
        hu = random_hu()
        viewer = view(make_prediction(hu=hu))
        for key, name, window in (("2", "Subdural", (75, 215)), ("3", "Bone", (600, 2800)), ("1", "Brain", (40, 80))):
            viewer.press(key)
            np.testing.assert_array_equal(viewer.read("canvas")[..., 0], grey(hu[2], *window))
            assert [text.strip("123") for text in viewer.pressed("[data-window]")] == [name]
        viewer.page.click("[data-window='2']")
        picture = viewer.read("canvas")
        np.testing.assert_array_equal(picture[..., :3], grey(hu[2], 600, 2800)[..., None].repeat(3, 2))
        assert (picture[..., 3] == 255).all()

    def test_dragging_sideways_is_width_and_up_and_down_level(self, view, make_prediction):
        hu = random_hu()
        viewer = view(make_prediction(hu=hu))
        viewer.drag("#stage", (0.5, 0.5), (60, 25))
        assert viewer.text("#window") == "L 65 W 140"
        assert (viewer.page.input_value("#level"), viewer.page.input_value("#width")) == ("65", "140")
        np.testing.assert_array_equal(viewer.read("canvas")[..., 0], grey(hu[2], 65, 140))
        viewer.press("ArrowRight")  # the window stays
        np.testing.assert_array_equal(viewer.read("canvas")[..., 0], grey(hu[3], 65, 140))
        viewer.drag("#stage", (0.9, 0.5), (-500, 0))
        assert viewer.text("#window") == "L 65 W 1"
        np.testing.assert_array_equal(viewer.read("canvas")[..., 0], grey(hu[3], 65, 1))
        viewer.press("0")
        assert viewer.text("#window") == "L 40 W 80"
        viewer.drag("#stage", (0.5, 0.5), (0, -30))
        assert viewer.text("#window") == "L 10 W 80"
        viewer.page.dblclick("#stage")
        assert viewer.text("#window") == "L 40 W 80"

    def test_typed_numbers(self, view, make_prediction):
        hu = random_hu()
        viewer = view(make_prediction(hu=hu))
        viewer.page.fill("#level", "300")
        viewer.page.fill("#width", "1000")
        viewer.press("Enter")
        np.testing.assert_array_equal(viewer.read("canvas")[..., 0], grey(hu[2], 300, 1000))
        viewer.press("1")  # a digit in a field, not a key
        assert viewer.text("#window") == "L 300 W 1000"

    def test_hu_under_the_pointer(self, view, make_prediction):
        hu = random_hu()
        viewer = view(make_prediction(hu=hu))
        box = viewer.page.locator("#stage").bounding_box()
        for row, column in ((0, 0), (31, 31), (12, 20)):
            viewer.page.mouse.move(box["x"] + box["width"] * (column + 0.5) / 32, box["y"] + box["height"] * (row + 0.5) / 32)
            assert viewer.text("#hu") == f"{hu[2, row, column]} HU".replace("-", "\u2212")
        viewer.page.mouse.move(5, 5)
        assert viewer.text("#hu") == ""


class TestHeatMaps:
    @pytest.fixture
    def heated(self, make_prediction, make_explanation):
        """In a skull that fills the slice."""
        hu = np.full((5, 32, 32), 35, np.int16)
        hu[:, [0, -1]] = hu[:, :, [0, -1]] = 800
        probabilities = np.array([0.1, 0.1, 0.1, 0.7, 0.9, 0.9])
        return make_prediction(hu=hu, scan_probabilities=probabilities, explanation=make_explanation())

    def test_all_positive_types_at_first_then_as_one_likes(self, view, heated):
        viewer = view(heated)
        assert viewer.pressed("[data-heat]") == ["subarachnoid", "subdural"]
        assert viewer.text("#heat-note") == "Peak in this slice, relative to the peak in the scan: SAH 100 %; SDH 60 %."
        both = viewer.read("overlay")
        viewer.page.click('[data-heat="subarachnoid"]')
        assert viewer.pressed("[data-heat]") == ["subdural"]
        one = viewer.read("overlay")
        half = len(both) // 2  # subarachnoid is above the middle, subdural below it
        assert both[: half // 2, :, 3].max() > 0
        assert one[: half // 2, :, 3].max() == 0
        assert one[half:, :, 3].max() > 0
        viewer.page.click('[data-heat="subdural"]')
        assert viewer.read("overlay")[..., 3].max() == 0
        assert viewer.text("#heat-note") == "No heat map is chosen."

    def test_h_hides_and_shows(self, view, heated):
        viewer = view(heated)
        before = viewer.read("overlay")
        assert before[..., 3].max() > 0
        assert viewer.press("h").read("overlay")[..., 3].max() == 0
        assert viewer.text("#heat-note") == "Heat maps are hidden."
        np.testing.assert_array_equal(viewer.press("h").read("overlay"), before)
        viewer.page.fill("#opacity", "0")
        assert viewer.read("overlay")[..., 3].max() == 0

    def test_colour_lies_where_the_map_is(self, view, heated):
        viewer = view(heated)
        viewer.page.click('[data-heat="subarachnoid"]')
        viewer.page.focus("#stage")
        viewer.press("Home")  # a fifth of the largest value: no contour and no letters yet
        overlay = viewer.read("overlay")
        heat = heated.explanation.share_on_slice(0, "subdural", (32, 32))
        assert heat.max() > 0.15
        places = ((np.arange(32) + 0.5) * len(overlay) / 32).astype(int)
        np.testing.assert_allclose(overlay[np.ix_(places, places)][..., 3], 255 * 0.55 * heat, atol=3)
        y, x = (places[i] for i in np.unravel_index(heat.argmax(), heat.shape))
        color = [int(HEAT_COLORS["subdural"][i : i + 2], 16) for i in (1, 3, 5)]
        np.testing.assert_allclose(overlay[y, x, :3], color, atol=16)  # 8 bit, premultiplied by a small alpha

    def test_a_contour_and_letters_beside_the_colour(self, view, heated):
        viewer = view(heated)
        viewer.page.click('[data-heat="subarachnoid"]')
        viewer.page.focus("#stage")
        viewer.press("End")
        heat = heated.explanation.share_on_slice(4, "subdural", (32, 32))
        overlay = viewer.read("overlay")
        scale = len(overlay) / 32
        # Down the column through the peak, the contour is opaque where the map passes half of its largest value.
        column = int(20 * scale)
        rim = np.flatnonzero(overlay[:, column, 3] > 200)
        above = np.flatnonzero(np.diff((heat[:, 20] > 0.5).astype(int)))
        assert abs(rim.min() / scale - (above[0] + 1)) < 1
        assert abs(rim.max() / scale - (above[1] + 1)) < 1

    def test_nothing_is_positive(self, view, make_prediction, make_explanation):
        viewer = view(make_prediction(scan_probabilities=np.full(6, 0.1), explanation=make_explanation()))
        assert viewer.pressed("[data-heat]") == []
        assert viewer.text("#heat-note") == "No label is positive, so no heat map is shown. Choose one above."
        assert viewer.read("overlay")[..., 3].max() == 0

    def test_a_peak_outside_the_skull_is_told(self, view, make_prediction, make_explanation):
        hu = np.full((5, 32, 32), -1000, np.int16)
        hu[:, 2:20, 2:20] = 800
        hu[:, 4:18, 4:18] = 35
        viewer = view(make_prediction(hu=hu, explanation=make_explanation()))
        assert "SDH 60 % (peak outside the skull)" in viewer.text("#heat-note")
        viewer.page.focus("#stage")
        assert "outside" not in viewer.press("Home").text("#heat-note")


class TestReaders:
    def test_narrow_screens_do_not_scroll_sideways(self, view, make_prediction, make_explanation):
        title = "A title that is very long " * 4 + "andhasawordwithoutanyspacesthatislongerthanthescreeniswide" * 2
        viewer = view(make_prediction(40, explanation=make_explanation(40)), NARROW, title=title, notice=title)
        assert not viewer.is_too_wide
        stage = viewer.page.locator("#stage").bounding_box()
        assert stage["x"] >= 0
        assert stage["x"] + stage["width"] <= NARROW["width"]

    def test_tab_reaches_every_control_in_the_order_of_reading(self, view, make_prediction, make_explanation):
        page = view(make_prediction(explanation=make_explanation())).page
        name = "const e = document.activeElement, d = e.dataset; return e.id || d.heat || d.window || d.label || e.className"
        found = []
        while len(found) < 40:
            page.keyboard.press("Tab")
            found.append(page.evaluate(f"(() => {{ {name} }})()"))
            if found[-1] == "slice-3":
                break
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline not in ("none", ""), found[-1]
        wanted = ["stage", "previous", "slider", "next", "0", "1", "2", "level", "width", "reset", "heat-shown", "subarachnoid"]
        wanted += ["subdural", "any", "opacity", "any", "epidural", "plot", "slice-3"]
        places = iter(found)
        assert all(one in places for one in wanted), found

    def test_research_use_is_always_in_sight(self, view, make_prediction):
        page = view(make_prediction(40)).page
        for part in (0, 0.5, 1):
            page.evaluate(f"scrollTo(0, {part} * document.body.scrollHeight)")
            box = page.locator(".foot strong").bounding_box()
            assert 0 <= box["y"] <= WIDE["height"] - box["height"]

    def test_hostile_texts_stay_text(self, view, make_prediction, make_explanation):
        bad = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
        prediction = make_prediction(
            scan_id=bad,
            model_name=bad,
            flags=(Note(bad, bad),),
            repairs=(Note("x", bad),),
            explanation=make_explanation(method=bad),
        )
        viewer = view(prediction, title=bad, notice=bad, blank_reasons={2: bad})
        assert viewer.page.title() == bad
        assert viewer.text("#blank") == bad
        assert viewer.text("h1").endswith(bad)

    def test_without_a_script_the_key_slices_are_there(self, show, make_prediction):
        page = show(prediction_page(make_prediction()), java_script_enabled=False)
        assert page.locator(".large img").count() == 2
        assert page.locator(".large img").first.is_visible()
        assert page.locator(".thumb img").count() == 5
        assert not page.locator("#stage").is_visible()


class TestIndex:
    @pytest.fixture
    def rows(self):
        values = ((0.3, ()), (0.9, ("subdural", "any")), (0.6, ("any",)))
        return [
            IndexRow(rank, f"id{rank}", f"Study {rank}", "ok", "", (0.1, 0.2, 0.1, 0.1, p / 2, p), called, flags, f"{rank}.html")
            for rank, (p, called), flags in zip((3, 1, 2), values, (("tilt",), (), ("tilt", "gap")), strict=True)
        ] + [IndexRow(None, "id4", "", "gap", "30 mm <b>between</b> slices", None)]

    @staticmethod
    def shown(page: Any) -> list[str]:
        return page.eval_on_selector_all("#rows tr:not([hidden])", "rows => rows.map(row => row.dataset.title)")

    def test_filters(self, show, rows):
        page = show(index_page(rows, title="List"))
        assert self.shown(page) == ["Study 1", "Study 2", "Study 3", "id4"]
        page.fill("#text", "between study")
        assert self.shown(page) == []
        assert page.is_visible("#empty")
        page.fill("#text", "<b>BETWEEN")
        assert self.shown(page) == ["id4"]
        assert page.text_content("#shown") == "1 of 4"
        page.fill("#text", "")
        for field, value, expected in (
            ("#called", "any", ["Study 1", "Study 2"]),
            ("#called", "-", ["Study 3"]),
            ("#called", "", ["Study 1", "Study 2", "Study 3", "id4"]),
            ("#status", "-", ["id4"]),
            ("#status", "gap", ["id4"]),
            ("#status", "ok", ["Study 1", "Study 2", "Study 3"]),
            ("#flag", "tilt", ["Study 2", "Study 3"]),
        ):
            page.select_option(field, value)
            assert self.shown(page) == expected, (field, value)

    def test_sorts(self, show, rows):
        page = show(index_page(rows, title="List"))
        page.click('[data-sort="intraparenchymal"]')  # all equal: by urgency
        assert self.shown(page) == ["Study 1", "Study 2", "Study 3", "id4"]
        page.click('[data-sort="any"]')
        page.click('[data-sort="any"]')
        assert self.shown(page) == ["id4", "Study 3", "Study 2", "Study 1"]
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
        page.click('[data-sort="title"]')
        assert self.shown(page) == ["id4", "Study 1", "Study 2", "Study 3"]
        page.click('[data-sort="rank"]')
        assert self.shown(page) == ["Study 1", "Study 2", "Study 3", "id4"]

    @pytest.mark.parametrize("viewport", [WIDE, NARROW])
    def test_two_thousand_rows_stay_quick(self, show, rows, viewport):
        many = [row._replace(rank=row.rank and 3 * i + row.rank) for i in range(500) for row in rows]
        page = show(index_page(many, title="List"), viewport)
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
        seconds = page.evaluate(
            """() => {
              const start = performance.now(), text = document.getElementById("text");
              text.value = "study 15"; text.dispatchEvent(new Event("input", { bubbles: true }));
              document.body.offsetHeight;
              return (performance.now() - start) / 1000;
            }"""
        )
        assert seconds < 0.5
        assert re.fullmatch(r"\d+ of 2,000", page.text_content("#shown"))

    def test_links_lead_to_the_pages(self, show, rows):
        page = show(index_page(rows, title="List"), java_script_enabled=False)
        assert page.locator("#rows a").evaluate_all("links => links.map(link => link.getAttribute('href'))") == [
            "1.html",
            "2.html",
            "3.html",
        ]
        assert not page.is_visible("#filters")


class TestNothingIsCutOffOrCovered:
    @pytest.fixture
    def explained(self, make_prediction, make_explanation):
        """Of so many slices, with contributions that are large at both ends."""

        def explained(count: int, size: int = 64) -> Any:
            hu = np.full((count, size, size), 35, np.int16)
            probabilities = np.array([0.1, 0.1, 0.1, 0.7, 0.9, 0.9])
            return make_prediction(count, hu=hu, scan_probabilities=probabilities, explanation=make_explanation(count, size=size))

        return explained

    @pytest.mark.parametrize("viewport", [LAPTOP, NARROW])
    @pytest.mark.parametrize("count", [1, 2, 5, 40])
    def test_bars_of_contributions_stay_within_the_chart(self, view, explained, count, viewport):
        viewer = view(explained(count), viewport)
        chart = viewer.page.locator(".chart").bounding_box()
        bars = viewer.page.locator(".adds path.chosen").bounding_box()
        levels = viewer.page.locator(".levels").bounding_box()
        assert bars["x"] >= levels["x"] + levels["width"] - 0.5
        assert bars["x"] + bars["width"] <= chart["x"] + chart["width"] + 0.5
        assert not viewer.is_too_wide

    def test_a_curve_without_bars_fills_the_chart(self, view, make_prediction):
        page = view(make_prediction()).page
        chart, plot = (page.locator(selector).bounding_box() for selector in (".chart", ".plot"))
        assert plot["x"] + plot["width"] == pytest.approx(chart["x"] + chart["width"], abs=0.5)

    @pytest.mark.parametrize("height", [720, 800, 900, 1080])
    @pytest.mark.parametrize("aspect", [1, 1.25])
    def test_on_a_screen_no_control_of_the_viewer_lies_behind_the_foot(self, view, explained, height, aspect):
        prediction = replace(explained(24), spacing_mm=(5.0, 0.5 * aspect, 0.5))
        page = view(prediction, {"width": 1280, "height": height}).page
        foot = page.locator(".foot").bounding_box()["y"]
        for selector in (".controls", ".tools.heat", "#opacity", "#heat-note"):
            box = page.locator(selector).bounding_box()
            assert box["y"] + box["height"] <= foot, selector
        assert page.locator("#stage").bounding_box()["height"] >= 18 * 16 - 1

    @pytest.mark.parametrize("viewport", [LAPTOP, NARROW])
    @pytest.mark.parametrize("kind", ["evaluation", "review"])
    def test_pages_of_tables_scroll_only_their_tables_sideways(self, show, viewport, kind):
        page = show(PAGES[kind](), viewport)
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
        outside = page.evaluate(
            """() => [...document.querySelectorAll("main *")]
              .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
              .filter((one) => { for (let at = one.parentElement; at; at = at.parentElement)
                if (["auto", "scroll"].includes(getComputedStyle(at).overflowX)) return false; return true; })
              .map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert outside == []

    def test_on_a_phone_the_history_of_a_training_can_be_read(self, show):
        page = show(PAGES["evaluation"](), NARROW)
        picture = page.locator("figure img").first
        # Letters of 8 points, of a picture of 1,500 pixels at 150 per inch, are legible from about 8 pixels on.
        assert picture.bounding_box()["width"] >= 700
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


class TestOnAPhone:
    def test_each_circle_of_the_review_page_stands_beside_its_word(self, show):
        page = show(PAGES["review"](), NARROW)
        words = page.eval_on_selector_all(
            ".choice span",
            "all => all.map(one => [one.textContent, one.getClientRects().length, one.getBoundingClientRect().right])",
        )
        assert [word for word, _, _ in words[:4]] == ["unchanged", "present", "absent", "unsure"]
        assert all(count == 1 and right <= NARROW["width"] for _, count, right in words)
        assert not page.evaluate('[...document.querySelectorAll(".wide")].some(one => one.scrollWidth > one.clientWidth)')

    @pytest.mark.parametrize("width", [360, 390, 700, 1100])
    def test_the_index_keeps_the_flags(self, show, width):
        rows = [IndexRow(1, "id1", "Study 1", "ok", "", (0.1,) * 6, ("any",), ("no_brain", "tilt"), "1.html", "iVBORw0KGgo=")]
        for pictured in (rows, [rows[0]._replace(thumbnail="")]):
            page = show(index_page(pictured, title="List"), {"width": width, "height": 844})
            flags, study = (page.locator(f"#rows .{name}").bounding_box() for name in ("flags", "study"))
            assert page.locator("#rows .flags").inner_text() == "no brain, tilt"
            assert flags["y"] >= study["y"] + study["height"] - 1
            assert flags["x"] == study["x"]
            assert flags["x"] + flags["width"] <= width

    def test_what_a_scan_comes_from_has_most_of_the_width(self, view, make_prediction):
        page = view(make_prediction(), NARROW).page
        assert page.locator(".source dd").first.bounding_box()["width"] > 230


class TestOnPaper:
    """What a browser lays out for a sheet of A4 with the pages' margins."""

    @pytest.fixture
    def print_out(self, show):
        def print_out(html: str) -> Any:
            page = show(html, A4)
            page.emulate_media(media="print")
            return page

        return print_out

    @pytest.mark.parametrize("kind", ["review", "evaluation"])
    def test_no_table_is_wider_than_the_sheet(self, print_out, kind):
        page = print_out(PAGES[kind]())
        assert page.evaluate(BEYOND) == []

    def test_nothing_beside_the_table_of_a_case_reaches_into_it(self, print_out):
        for is_shown in (True, False):
            page = print_out(review(is_private=is_shown, present=("intraparenchymal", "subarachnoid", "any"), is_shown=is_shown))
            right = page.locator(".verdict").bounding_box()["x"]
            texts = page.evaluate(
                """() => [...document.querySelectorAll(".pictures p, .pictures span, .pictures img")].map((one) => {
                  const range = document.createRange();
                  range.selectNodeContents(one);
                  return Math.max(one.getBoundingClientRect().right, range.getBoundingClientRect().right);
                })"""
            )
            assert texts
            assert max(texts) <= right

    def test_the_index_shows_every_type_and_flag_and_no_mark_runs_into_the_next_column(self, print_out):
        row = IndexRow(1, "id1", "Study 1", "ok", "", (0.999,) * 6, LABELS, ("no_brain", "thick_slices"), "1.html")
        page = print_out(index_page([row, row._replace(rank=2)], title="List"))
        cells = page.locator("#rows tr").first.locator("td.p")
        assert [cells.nth(k).is_visible() for k in range(cells.count())] == [True] * 6
        assert page.locator("#rows .flags").first.inner_text() == "no brain, thick slices"
        wide = "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.outerHTML)"
        assert page.eval_on_selector_all("#rows td", wide) == []
        assert page.evaluate(BEYOND) == []

    def test_no_heading_is_left_behind_at_the_end_of_a_sheet(self, print_out, make_prediction, make_explanation):
        explained = prediction_page(make_prediction(explanation=make_explanation()))
        for html in (explained, PAGES["review"](), PAGES["evaluation"]()):
            page = print_out(html)
            assert set(page.eval_on_selector_all("h2, h3", "all => all.map(one => getComputedStyle(one).breakAfter)")) == {
                "avoid"
            }

    @pytest.mark.parametrize("kind", ["review", "evaluation"])
    def test_what_spans_sheets_is_no_grid(self, print_out, kind):
        # Chromium prints what follows a grid over those of its rows that it has moved to the next sheet.
        page = print_out(PAGES[kind]())
        assert set(page.eval_on_selector_all("main, main > section", "all => all.map(one => getComputedStyle(one).display)")) == {
            "block"
        }


def review(is_private: bool = True, present: tuple[str, ...] = ("any",), is_shown: bool = True) -> str:
    hu = np.full((8, 8), 40, np.int16) if is_shown else None
    pictures = tuple(ReviewPicture(hu, 6 + i, i - 1, present) for i in range(3))
    case = ReviewCase(
        level="slice",
        rank=1,
        scan_id="7f3a19c04be2d851",
        slice=7,
        slices=20,
        labels=np.array([1.0, 0, 0, 0, np.nan, 1]),
        probabilities=np.array([0.004, 0.1, 0.2, 0.3, 0.4, 0.45]),
        disagreeing=("epidural", "any"),
        pictures=pictures,
        sop_uid="1.2.3",
        series_uid="1.2",
        flags="uneven_spacing tilt",
    )
    return review_page([case], facts={"Model": "net"}, disagreeing={"slice": 2}, is_private=is_private)


@cache
def evaluation() -> str:
    """With the history of the training, comparisons and strata, and labels of which nothing can be said."""
    with TemporaryDirectory() as folder:
        tables = make_tables(30)
        for table in tables.values():
            table["label_epidural"] = 0
        study = write_study(Path(folder), tables)
        history = pd.DataFrame({"epoch": [0, 1], "train/loss": [1.0, 0.5], "val/loss": [0.9, 0.1], "val/auroc_any": [0.6, 0.9]})
        save_figure(plot_history(history), study / "history.png")
        evidence = read_run(study)
        few = FigureSettings(replicates=100)
        supplements = Supplements(
            comparisons=compare_encoder(evidence, level="slice", settings=few),
            strata=evaluate_strata(evidence, find_strata(evidence), settings=few),
        )
        return build_report(
            evidence, compute_figures(evidence, all_figures(), settings=few), read_study(study), supplements
        ).to_html()


PAGES = {"review": review, "evaluation": evaluation}
