"""ich-prepare: read a tree of head CT once, account for every file, and cache the scans."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ich_lstm.cli.cluster import workforce
from ich_lstm.cli.console import DONE, FAILED, SOME_FAILED, OptionParser, console, progress_bar, run_command

HELP = """
ich-prepare PATH --out DIR [--labels CSV] [--size 256] [--crop head]
ich-prepare PATH --check [--out DIR]

Read a folder or zip of head CT, choose the series to use, and cache them for training. Every file gets a row in
DIR/private/ledger.csv: used, skipped or refused, and why.

  --out DIR            folder to make; an interrupted run goes on where it stopped
  --check              read everything as a prediction would, pixels too, say what became of the files, and keep nothing
                       but the ledger (in DIR/private, if --out is given)
  --labels CSV         take only what is labelled; left out: every study
  --size 256           side of the network's input in pixels
  --crop head          smallest square around the head; or none
  --workers N          processes; left out: one per processor
  --cluster ADDRESS    work on the cluster of this dask scheduler (tcp://HOST:PORT) instead of on this machine; the paths
                       must be the same there
  --project-key FILE   key for the ids; left out: the user's own
  --debug              show the traceback of an error
  --version

Then: ich-train --data.root DIR --data.labels CSV
Exit codes: 0 done, 1 failed (or no CT at all), 2 wrong usage, 3 something was refused.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command("ich-prepare", HELP, _prepare, argv)


def _prepare(arguments: list[str]) -> int:
    parser = OptionParser("ich-prepare")
    parser.add_argument("path", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--size", type=int, default=argparse.SUPPRESS)
    parser.add_argument("--crop", default=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--project-key", type=Path)
    parser.add_argument("--cluster")
    given = parser.parse(arguments)
    if given.check:
        return _check(given)
    if given.out is None:
        parser.error("--out is missing")
    from ich_lstm.data.prepare import prepare
    from ich_lstm.data.table import read_label_table
    from ich_lstm.pixels.preprocess import Preprocessing
    from ich_lstm.privacy import ProjectKey

    preprocessing = Preprocessing(**{name: getattr(given, name) for name in ("size", "crop") if name in given})
    out = console()
    labels = read_label_table(given.labels) if given.labels else None
    with workforce(given.cluster, given.workers) as force, progress_bar(out) as tell:
        prepared = prepare(
            given.path,
            given.out,
            preprocessing=preprocessing,
            key=ProjectKey.open(given.project_key),
            labels=labels,
            workers=force.workers,
            executor=force.executor,
            progress=tell,
        )
    counts = prepared.manifest
    out.print(counts["summary"])
    out.print(f"{counts['scans']} scans of {counts['patients']} patients, {counts['slices']:,} slices, in {given.out}")
    return SOME_FAILED if counts["files"]["refused"] else DONE


def _check(given: argparse.Namespace) -> int:
    from ich_lstm.privacy import private_folder
    from ich_lstm.reading.check import check_source

    out = console()
    private = private_folder(given.out) if given.out else None
    with workforce(given.cluster, given.workers) as force, progress_bar(out) as tell:
        index = check_source(
            given.path,
            workers=force.workers,
            executor=force.executor,
            folder=private / "index" if private else None,
            progress=tell,
        )
    out.print(index.ledger.summary())
    if private:
        index.ledger.write_csv(private / "ledger.csv")
        out.print(f"What became of each file: {private / 'ledger.csv'}")
    if not len(index.headers):
        return FAILED
    return SOME_FAILED if index.ledger.counts()["refused"] else DONE


if __name__ == "__main__":
    sys.exit(main())
