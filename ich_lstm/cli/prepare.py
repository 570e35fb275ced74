"""ich-prepare: read a tree of head CT once, account for every file, and cache the scans."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ich_lstm.cli.console import DONE, SOME_FAILED, OptionParser, console, progress_bar, run_command

HELP = """
ich-prepare PATH --out DIR [--labels CSV] [--size 256] [--crop head]

Read a folder or zip of head CT, choose the series to use, and cache them for training. Every file gets a row in
DIR/private/ledger.csv: used, skipped or refused, and why.

  --out DIR            folder to make; an interrupted run goes on where it stopped
  --labels CSV         take only what is labelled; left out: every study
  --size 256           side of the network's input in pixels
  --crop head          smallest square around the head; or none
  --workers N          processes; left out: one per processor
  --project-key FILE   key for the ids; left out: the user's own
  --debug              show the traceback of an error
  --version

Then: ich-train --data.root DIR --data.labels CSV
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something was refused.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command("ich-prepare", HELP, _prepare, argv)


def _prepare(arguments: list[str]) -> int:
    parser = OptionParser("ich-prepare")
    parser.add_argument("path", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--size", type=int, default=argparse.SUPPRESS)
    parser.add_argument("--crop", default=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--project-key", type=Path)
    given = parser.parse(arguments)
    from ich_lstm.data.prepare import prepare
    from ich_lstm.data.table import read_label_table
    from ich_lstm.pixels.preprocess import Preprocessing
    from ich_lstm.privacy import ProjectKey

    preprocessing = Preprocessing(**{name: getattr(given, name) for name in ("size", "crop") if name in given})
    out = console()
    labels = read_label_table(given.labels) if given.labels else None
    with progress_bar(out) as tell:
        prepared = prepare(
            given.path,
            given.out,
            preprocessing=preprocessing,
            key=ProjectKey.open(given.project_key),
            labels=labels,
            workers=given.workers,
            progress=tell,
        )
    counts = prepared.manifest
    out.print(counts["summary"])
    out.print(f"{counts['scans']} scans of {counts['patients']} patients, {counts['slices']:,} slices, in {given.out}")
    return SOME_FAILED if counts["files"]["refused"] else DONE


if __name__ == "__main__":
    sys.exit(main())
