"""Do heat maps point at real bleeding? Sheets of slices with marked peaks for readers, and the counts of their answers.

    python examples/benchmarks/real_bleeding_maps.py --runs runs/bleeding --out sheets
    python examples/benchmarks/real_bleeding_maps.py --out sheets --score reader-1.csv reader-2.csv

``--runs`` is a folder of `real_bleeding.py` in which the arm ``whole-scan`` has run on all folds. One positive slice of each of
60 held-out patients is drawn, and on it the peak of the map of the fold's model, the peak of the same network with random
weights, and the middle of the head. The sheets show each slice twice, without marks and with three letters, whose order is drawn
anew for each slice: a reader does not know which letter is whose. A map that is 0 everywhere has no letter, and counts as beside
the bleeding. Drawn patients without a positive slice are left out.

A reader fills in ``answers.csv``: for each slice, the letters that lie on the bleeding (``on``, for example ``AC``; empty for
none), and 1 in ``unclear`` where no bleeding can be seen. ``--score`` counts, for each reader, on how many slices each source's
peak lies on the bleeding, and how often two readers agree.

The sheets show images of patients: they, and the terms of the set, stay out of the project. Only counts leave the folder.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import phe_sich
import torch
from explain import MIDDLE, MODEL, RANDOM, peak_of, with_random_weights
from real_bleeding import FOLDS, REFERENCE, folder_of

from ich_lstm import Scan, ScanClassifier, explain, read_scan
from ich_lstm.data.split.split_file import SplitFile
from ich_lstm.privacy import PRIVATE
from ich_lstm.statistics import wilson
from ich_lstm.window import BRAIN

SOURCES = (MODEL, RANDOM, MIDDLE)
LETTERS = "ABC"
COLORS = ((80, 220, 255), (255, 160, 80), (120, 255, 120))
"""Colours of the letters, as (blue, green, red). They say nothing about the sources."""

PANEL, IN_A_ROW, ROWS = 320, 3, 4
KEY, ANSWERS = "key.csv", "answers.csv"
LOWEST_HU_OF_HEAD = -200


class Shown(NamedTuple):
    """A slice, and where each source points in it; None where it points nowhere."""

    patient: str
    slice: int
    image: np.ndarray
    places: dict[str, tuple[int, int] | None]


def middle_of(hu: np.ndarray) -> tuple[int, int]:
    """Row and column of the middle of the head in a slice ``(h, w)``."""
    rows, columns = np.nonzero(hu > LOWEST_HU_OF_HEAD)
    return int(rows.mean().round()), int(columns.mean().round())


def slices_to_show(given: argparse.Namespace) -> Iterator[Shown]:
    """One positive slice of each of the drawn patients, fold by fold."""
    labels = pd.read_csv(given.runs / PRIVATE / phe_sich.LABELS_FILE, dtype={phe_sich.LABEL: "Int8"})
    positive = set(labels.loc[labels[phe_sich.LABEL] == 1, "sop_uid"])
    random = np.random.default_rng(given.seed)
    split = SplitFile.read(given.runs / PRIVATE / "split.json")
    held_out = [sorted(patient for patient, subset in split.subsets(fold).items() if subset == "test") for fold in range(FOLDS)]
    drawn = set(random.permutation([patient for members in held_out for patient in members])[: given.slices].tolist())
    for fold, members in enumerate(held_out):
        mine = [patient for patient in members if patient in drawn]
        if not mine:
            continue
        model = ScanClassifier.load(folder_of(argparse.Namespace(out=given.runs), REFERENCE, fold) / "model").eval()
        models = {MODEL: model, RANDOM: with_random_weights(model)}
        for patient in mine:
            scan = read_scan(given.runs / PRIVATE / "dicom" / patient)
            numbers = [i for i, uid in enumerate(scan.sop_uids) if uid in positive]
            if numbers:
                yield show(patient, scan, int(random.choice(numbers)), models, given.stride)


def show(patient: str, scan: Scan, number: int, models: dict[str, ScanClassifier], stride: int | None) -> Shown:
    """A slice with the peaks of all sources."""
    places: dict[str, tuple[int, int] | None] = {MIDDLE: middle_of(scan.hu[number])}
    for who, model in models.items():
        places[who] = peak_of(explain(model, scan, labels=[phe_sich.LABEL], stride=stride), number, phe_sich.LABEL, scan)
    return Shown(patient, number, as_gray(scan.hu[number]), places)


def as_gray(hu: np.ndarray) -> np.ndarray:
    """A slice in the brain window, uint8 ``(h, w)``."""
    return (BRAIN(hu) * 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ sheets
def draw(shown: Shown, letters: dict[str, str], number: int) -> np.ndarray:
    """A slice without marks, and beside it with letters; ``letters`` maps a source to its letter."""
    factor = PANEL / max(shown.image.shape)
    clean = cv2.cvtColor(cv2.resize(shown.image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR)
    clean = cv2.copyMakeBorder(clean, 0, PANEL - clean.shape[0], 0, PANEL - clean.shape[1], cv2.BORDER_CONSTANT)
    marked = clean.copy()
    for who, place in shown.places.items():
        if place is None:
            continue
        row, column = (round((value + 0.5) * factor) for value in place)
        color = COLORS[LETTERS.index(letters[who])]
        cv2.drawMarker(marked, (column, row), color, cv2.MARKER_CROSS, 9, 1)
        cv2.putText(marked, letters[who], (column + 6, row - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA)
    cv2.putText(clean, str(number), (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(np.hstack([clean, marked]), 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(90, 90, 90))


def make_sheets(given: argparse.Namespace) -> None:
    """Write sheets, the key, and a table for answers."""
    given.out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(given.seed + 1)
    key, tiles = [], []
    for number, shown in enumerate(slices_to_show(given), start=1):
        letters = dict(zip(SOURCES, random.permutation(list(LETTERS)).tolist(), strict=True))
        tiles.append(draw(shown, letters, number))
        found = {who: "" if shown.places[who] is None else letters[who] for who in SOURCES}
        key.append({"number": number, "patient": shown.patient, "slice": shown.slice, **found})
    if not key:
        sys.exit(f"{given.runs}: no held-out patient with a positive slice")
    each = IN_A_ROW * ROWS
    for first in range(0, len(tiles), each):
        page = tiles[first : first + each]
        page += [np.zeros_like(tiles[0])] * (-len(page) % IN_A_ROW)
        rows = [np.hstack(page[i : i + IN_A_ROW]) for i in range(0, len(page), IN_A_ROW)]
        cv2.imwrite(str(given.out / f"sheet-{first // each + 1}.png"), np.vstack(rows))
    pd.DataFrame(key).to_csv(given.out / KEY, index=False)
    pd.DataFrame({"number": [row["number"] for row in key], "on": "", "unclear": ""}).to_csv(given.out / ANSWERS, index=False)
    print(f"{len(key)} slices on {-(-len(key) // each)} sheets in {given.out}; answers go into copies of {ANSWERS}")


# ------------------------------------------------------------------------------------------------ score
def score(given: argparse.Namespace) -> str:
    """Counts of each reader as Markdown."""
    key = pd.read_csv(given.out / KEY, dtype=str, keep_default_na=False).set_index("number")
    answers = {str(path): pd.read_csv(path, dtype=str, keep_default_na=False).set_index("number") for path in given.score}
    lines = ["| reader | slices with visible bleeding | " + " | ".join(SOURCES) + " |", "|---" * (2 + len(SOURCES)) + "|"]
    judged = {}
    for name, table in answers.items():
        if list(table.index) != list(key.index):
            sys.exit(f"{name}: got {len(table)} rows, expected the {len(key)} numbers of {KEY}")
        clear = table["unclear"] != "1"
        on = pd.DataFrame(
            {
                who: [bool(letter) and letter in found for letter, found in zip(key[who], table["on"], strict=True)]
                for who in SOURCES
            },
            index=key.index,
        )
        judged[name] = (clear, on)
        cells = []
        for who in SOURCES:
            hits, count = int(on.loc[clear, who].sum()), int(clear.sum())
            low, high = wilson(hits, count)
            cells.append(f"{hits} ({low:.0%} to {high:.0%})")
        lines.append(f"| {name} | {int(clear.sum())} | " + " | ".join(cells) + " |")
    if len(judged) == 2:
        (clear, first), (clear_too, second) = judged.values()
        both = clear & clear_too
        same = (first == second).loc[both].to_numpy()
        lines += [
            "",
            f"The readers agree on {same.sum()} of {same.size} peaks on the {both.sum()} slices that are clear to both.",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="folder of real_bleeding.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sheets")
    parser.add_argument("--slices", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stride", type=int, help="of the maps, in pixels of the network's input; by default as in explain")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--score", type=Path, nargs="+", help="filled tables of answers")
    given = parser.parse_args()
    if given.score:
        print(score(given))
        return
    if given.runs is None:
        parser.error("--runs: expected a folder of real_bleeding.py")
    torch.set_num_threads(given.threads)
    make_sheets(given)


if __name__ == "__main__":
    main()
