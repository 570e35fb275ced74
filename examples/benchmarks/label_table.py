"""How fast the label table of RSNA is read, checked and grouped into scans at its full size, and how much memory that takes.

    python examples/benchmarks/label_table.py [--rounds 3]

It makes a table with RSNA's numbers of images, scans, patients and positives (4,516,842 rows, 4 images twice) and a key table of
its scans, and removes both. Each round is a process of its own; seconds are those of the processor, all threads together, which
other work on the machine does not lengthen much. Goals: 20 seconds and 2 GB in all.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from ich_lstm.data.joining.join import join_labels
from ich_lstm.data.joining.locate import locate_labels
from ich_lstm.data.labels.table import read_label_table
from ich_lstm.data.prepared.images import ImageTable
from ich_lstm.labels import HEMORRHAGE_TYPES, LABELS

IMAGES, SCANS, PATIENTS = 752_803, 21_744, 18_938
POSITIVES = {
    "epidural": 3_145,
    "intraparenchymal": 36_118,
    "intraventricular": 26_205,
    "subarachnoid": 35_675,
    "subdural": 47_166,
    "any": 107_933,
}
REPEATED = (5, 70_000, 300_000, 700_000)
"""Images that stand twice."""

GOAL_SECONDS, GOAL_BYTES = 20.0, 2e9


# ------------------------------------------------------------------------------------------------ the tables
def make_labels() -> np.ndarray:
    """Labels of all images, uint8 ``(images, k)``, with RSNA's number of positives of each label."""
    labels = np.zeros((IMAGES, len(LABELS)), np.uint8)
    kinds = np.repeat(np.arange(len(HEMORRHAGE_TYPES)), [POSITIVES[label] for label in HEMORRHAGE_TYPES])
    labels[np.arange(len(kinds)) % POSITIVES["any"], kinds] = 1  # round and round: every positive image gets a type
    labels[: POSITIVES["any"], LABELS.index("any")] = 1
    assert {label: int(labels[:, k].sum()) for k, label in enumerate(LABELS)} == POSITIVES
    return labels


def make_tables(folder: Path, seed: int = 0) -> None:
    """Write ``stage_2_train.csv``, in another order than the scans, and the key table of a prepared folder."""
    random = np.random.default_rng(seed)
    names = np.array([f"ID_{number:09x}" for number in random.choice(16**9, IMAGES, replace=False)])
    labels = make_labels()
    order = random.permutation(IMAGES)
    order = np.concatenate([order, order[list(REPEATED)]])
    identifiers = np.strings.add(np.repeat(names[order], len(LABELS)), np.tile([f"_{label}" for label in LABELS], len(order)))
    rows = pd.DataFrame({"ID": identifiers, "Label": labels[order].ravel()})
    rows.to_csv(folder / "stage_2_train.csv", index=False)
    scan = np.arange(IMAGES) * SCANS // IMAGES
    key = {
        "scan_id": np.char.mod("scan%d", scan),
        "slice_id": np.char.mod("slice%d", np.arange(IMAGES)),
        "patient_id": np.char.mod("ID_%08x", scan % PATIENTS),
        "study_uid": np.char.mod("ID_%010x", scan),
        "accession_number": "",
        "study_date": "",
        "series_uid": np.char.mod("ID_%010x", SCANS + scan),
        "sop_uid": names,
        "file": np.strings.add(np.strings.add("stage_2_train/", names), ".dcm"),
        "hu_hash": np.char.mod("%032x", np.arange(IMAGES)),
        "cache": np.char.mod("%d.b2nd", scan),
    }
    pd.DataFrame(key).to_parquet(folder / "key.parquet")


# ------------------------------------------------------------------------------------------------ what is measured
def measure(folder: Path) -> dict[str, float]:
    """Processor seconds of each step in this process, and its peak memory."""
    begin = time.process_time()
    table = read_label_table(folder / "stage_2_train.csv")
    read = time.process_time()
    images = ImageTable(pd.read_parquet(folder / "key.parquet"))
    loaded = time.process_time()
    scans = join_labels(locate_labels(table, images)).scans(folder)
    joined = time.process_time()
    positives = np.concatenate([scan.slice_labels for scan in scans]).sum(axis=0).tolist()
    assert (len(table), len(scans), positives) == (IMAGES, SCANS, list(POSITIVES.values()))
    assert table.flags[0].startswith("24 ")
    return {
        "table read and checked (s)": read - begin,
        "key table read (s)": loaded - read,
        "joined and grouped by scan (s)": joined - loaded,
        "all (s)": joined - begin,
        "peak memory (GB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def main() -> None:
    """Make the tables, measure, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tables(folder)
        size = (folder / "stage_2_train.csv").stat().st_size
        console.print(f"a table of {(IMAGES + len(REPEATED)) * len(LABELS):,} rows, {size / 1e6:.0f} MB")
        command = [sys.executable, __file__, "--measure", name]
        rounds = [
            json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout) for _ in range(given.rounds)
        ]
    medians = {step: statistics.median(one[step] for one in rounds) for step in rounds[0]}
    table = Table("step", "median", "worst")
    for step, median in medians.items():
        table.add_row(step, f"{median:.2f}", f"{max(one[step] for one in rounds):.2f}")
    console.print(table)
    reached = medians["all (s)"] < GOAL_SECONDS and medians["peak memory (GB)"] * 1e9 < GOAL_BYTES
    console.print(f"goal of {GOAL_SECONDS:.0f} s and {GOAL_BYTES / 1e9:.0f} GB: {'reached' if reached else 'missed'}")


if __name__ == "__main__":
    main()
