"""Draw the pictures of pages in docs/images, as Chromium shows the pages; needs playwright and a Chromium on the path.

    python examples/page_pictures.py scan docs/images/page.png                        # a synthetic head, made-up probabilities
    python examples/page_pictures.py index docs/images/index.png                      # sixty synthetic heads, the same
    python examples/page_pictures.py report figures/report.html docs/images/report.png    # the scans' part of an evaluation
    python examples/page_pictures.py audit prepared/audit.html docs/images/audit.png      # a whole audit

Time: ten seconds each on one core.
"""

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from ich_lstm.explanation import Explanation
from ich_lstm.labels import ANY, HEMORRHAGE_TYPES, LABELS
from ich_lstm.pages.index_page import IndexRow, encode_thumbnail, index_page
from ich_lstm.pages.scan_page import prediction_page
from ich_lstm.phantom import PhantomScan, PhantomSettings, make_head
from ich_lstm.prediction import OperatingPoint, ScanPrediction

BLEEDING = PhantomSettings(seed=4, size=512, slices=32, prevalence=1.0, noise=0.8)
TYPES = {"subarachnoid", "subdural", "intraparenchymal"}
CELLS = 24
"""Rows and columns of a heat map: an input of 384 pixels at stride 16."""

WORKLIST = PhantomSettings(seed=2, size=128, slices=20, prevalence=0.5, noise=0.5)
STUDIES, POINT = 60, 0.4

SCAN_SIZE = {"width": 1440, "height": 1040}
INDEX_SIZE = {"width": 1440, "height": 900}
REPORT_WIDTH = 1300
AUDIT_WIDTH = 1200


def find_head() -> PhantomScan:
    """The first head of the set in which these types can be seen, and no other."""
    small = PhantomSettings(seed=BLEEDING.seed, size=64, slices=BLEEDING.slices, prevalence=1.0, noise=0)
    for number in range(2000):
        seen = make_head(small, number).slice_labels.max(axis=0).tolist()
        if {label for label, is_seen in zip(HEMORRHAGE_TYPES, seen, strict=False) if is_seen} == TYPES:
            return make_head(BLEEDING, number)
    raise LookupError(f"no head of seed {BLEEDING.seed} has {', '.join(sorted(TYPES))}, and no other bleeding")


def make_prediction(head: PhantomScan) -> ScanPrediction:
    """What a model might say that sees most of the truth, and is never sure."""
    draw = np.random.default_rng(0)
    count, rows, _ = head.hu.shape
    area = np.concatenate([head.visible, head.visible.sum(axis=1, keepdims=True)], axis=1)
    seen = np.stack([np.convolve(area[:, k], (0.25, 0.5, 0.25), "same") for k in range(len(LABELS))], axis=1)
    logits = -4.2 + 8.4 * seen / (seen + 2500) + draw.normal(scale=0.25, size=seen.shape)
    slices = 1 / (1 + np.exp(-logits))
    slices[:, LABELS.index(ANY)] = np.maximum(slices[:, LABELS.index(ANY)], slices.max(axis=1))
    side = rows // CELLS * CELLS
    cells = head.masks[:, :, :side, :side].reshape(len(HEMORRHAGE_TYPES), count, CELLS, side // CELLS, CELLS, side // CELLS)
    of_types = cells.mean(axis=(3, 5)).transpose(1, 0, 2, 3)
    maps = np.concatenate([of_types, of_types.max(axis=1, keepdims=True)], axis=1).astype(np.float32)
    explanation = Explanation(
        maps=maps, box=(0.0, 0.0, float(side), float(side)), contributions=0.3 * (logits + 2), method="made up, from the truth"
    )
    thresholds = np.array([0.22, 0.35, 0.3, 0.41, 0.38, 0.29])
    sensitivity = np.array([(0.88, 0.71, 0.96), (0.95, 0.90, 0.98), (0.96, 0.91, 0.99), (0.91, 0.86, 0.95), (0.90, 0.85, 0.94)])
    specificity = np.array([(0.97, 0.95, 0.98), (0.94, 0.92, 0.96), (0.97, 0.95, 0.98), (0.90, 0.87, 0.92), (0.88, 0.85, 0.91)])
    return ScanPrediction(
        slice_probabilities=slices,
        scan_probabilities=slices.max(axis=0),
        scan_id="made-up",
        slice_ids=tuple(map(str, range(count))),
        positions_mm=(np.arange(count) - count / 2) * head.spacing_mm[0],
        spacing_mm=head.spacing_mm,
        hu=head.hu,
        model_name="made up",
        model_hash="c0ffee12" * 2,
        explanation=explanation,
        operating_point=OperatingPoint(
            "sensitivity=0.95",
            thresholds,
            thresholds,
            "the validation set",
            np.vstack([sensitivity, (0.95, 0.93, 0.97)]),
            np.vstack([specificity, (0.86, 0.82, 0.89)]),
        ),
    )


def draw_scan(browser: Any, out: Path) -> None:
    """The page of a scan, as it opens."""
    html = prediction_page(make_prediction(find_head()), title="Synthetic head, made-up probabilities")
    with tempfile.TemporaryDirectory() as folder:
        page = browser.new_page(viewport=SCAN_SIZE)
        path = Path(folder) / "page.html"
        path.write_text(html, encoding="utf-8")
        page.goto(path.as_uri())
        page.wait_for_function("!document.querySelector('#stage[aria-busy=\"true\"]')")
        page.wait_for_timeout(500)
        page.screenshot(path=out)


def make_rows() -> list[IndexRow]:
    """Sixty studies as a worklist has them: probabilities of the types drawn by the truth, four studies without a result."""
    draw = np.random.default_rng(0)
    drawn = []
    for number in range(STUDIES):
        head = make_head(WORKLIST, number)
        truth = head.slice_labels.max(axis=0)[: len(HEMORRHAGE_TYPES)]
        types = 1 / (1 + np.exp(-draw.normal(np.where(truth == 1, 1.0, -4.0), 1.5)))
        probabilities = np.append(types, types.max())
        called = tuple(label for label, value in zip(LABELS, probabilities, strict=True) if value >= POINT)
        slices = np.tile(probabilities, (len(head.hu), 1))
        prediction = ScanPrediction(
            slice_probabilities=slices,
            scan_probabilities=probabilities,
            scan_id=draw.bytes(6).hex(),
            slice_ids=tuple(map(str, range(len(slices)))),
            positions_mm=np.arange(len(slices)) * head.spacing_mm[0],
            spacing_mm=head.spacing_mm,
            hu=head.hu,
            model_name="made up",
            model_hash="c0ffee12" * 2,
        )
        middle = replace(prediction, slice_probabilities=slices * (np.arange(len(slices)) == len(slices) // 2)[:, None])
        flags = tuple(draw.choice(("tilt", "gap", "contrast", "thick_slices"), size=draw.integers(3), replace=False).tolist())
        row = IndexRow(None, prediction.scan_id, f"Study {number + 1}", "ok", "", tuple(probabilities.tolist()), called, flags)
        drawn.append(row._replace(page=f"pages/{number}.html", thumbnail=encode_thumbnail(middle)))
    for number in range(4):
        failed = {"status": "truncated_pixels", "reason": "pixel data cut short", "probabilities": None}
        drawn[number] = drawn[number]._replace(called=(), flags=(), page="", thumbnail="", **failed)
    drawn.sort(key=lambda row: (not row.called, row.status == "ok", -(row.probabilities or (0.0,))[-1]))
    return [row._replace(rank=rank) for rank, row in enumerate(drawn, start=1)]


def draw_index(browser: Any, out: Path) -> None:
    """The head of the index of many studies."""
    facts = {"Operating point": "sensitivity=0.95, chosen on the validation set"}
    html = index_page(make_rows(), title="Synthetic worklist, made-up probabilities", facts=facts, has_operating_point=True)
    with tempfile.TemporaryDirectory() as folder:
        page = browser.new_page(viewport=INDEX_SIZE)
        path = Path(folder) / "index.html"
        path.write_text(html, encoding="utf-8")
        page.goto(path.as_uri())
        page.screenshot(path=out)


def draw_report(browser: Any, report: Path, out: Path) -> None:
    """The scans' part of an evaluation, from its figures to the calibration."""
    page = browser.new_page(viewport={"width": REPORT_WIDTH, "height": 1000})
    page.goto(report.resolve().as_uri())
    section = page.locator("section[aria-label='Scans']")
    around, last = section.bounding_box(), section.locator(".panels").nth(2).bounding_box()
    clip = {"x": 0, "y": around["y"] - 16, "width": REPORT_WIDTH, "height": last["y"] + last["height"] - around["y"] + 32}
    page.screenshot(path=out, full_page=True, clip=clip)


def draw_audit(browser: Any, audit: Path, out: Path) -> None:
    """The whole page of an audit."""
    page = browser.new_page(viewport={"width": AUDIT_WIDTH, "height": 1000})
    page.goto(audit.resolve().as_uri())
    page.screenshot(path=out, full_page=True)


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("scan", "index"):
        kinds.add_parser(kind).add_argument("out", type=Path)
    for kind in ("report", "audit"):
        of_page = kinds.add_parser(kind)
        of_page.add_argument("page", type=Path)
        of_page.add_argument("out", type=Path)
    arguments = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if arguments.kind == "scan":
            draw_scan(browser, arguments.out)
        elif arguments.kind == "index":
            draw_index(browser, arguments.out)
        elif arguments.kind == "report":
            draw_report(browser, arguments.page, arguments.out)
        else:
            draw_audit(browser, arguments.page, arguments.out)
        browser.close()


if __name__ == "__main__":
    main()
