"""ich-prepare: read a tree of head CT once, account for every file, and cache the scans."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ich_lstm.cli.audit import add_audit_options, audit_prepared, check_audit_options, folder_to_check
from ich_lstm.cli.cluster import workforce
from ich_lstm.cli.console import DONE, FAILED, SOME_FAILED, OptionParser, console, progress_bar, run_command

if TYPE_CHECKING:
    from ich_lstm.data.prepared.folder import PreparedFolder
    from ich_lstm.data.tables.labelled import LabelTable
    from ich_lstm.privacy import ProjectKey

CHECK_SIZE = 128
"""Side in pixels of the scans that a check makes and throws away: enough for small pictures, half a megabyte a scan."""

WHOLE = "Scans that are cached are whole, and are not made again."

HELP = """
ich-prepare PATH --out DIR [--labels CSV ...] [--size 256] [--crop head]
ich-prepare PATH --check [--labels CSV ...] [--out DIR]

Read a folder or zip of head CT, choose the series to use, and cache them for training. Every file gets a row in
DIR/private/ledger.csv: used, skipped or refused, and why.

  --out DIR            folder to make; if ich-prepare was stopped, the same command goes on where it was
  --check              read everything as a prediction would, pixels too, say what became of the files, and cache no scan;
                       with --out, the ledger is kept in DIR/private. With --labels: read as a training would, and audit
                       the labels (with --out: DIR/audit.html); PATH may then be a prepared folder, too
  --labels CSV         take only what is labelled, and audit it: DIR/audit.html; left out: every study, and no audit. Several
                       tables count together
  --corrections CSV    audit the labels with these corrections, which win over them; several count together
  --truth majority     who of CQ500's readers must have seen a finding; or unanimous, any, R1, R2, R3
  --repair-any         where labels say that a type is present and any is not, believe the type
  --split-file FILE    who trains and who is held out (split.json of a run, or a CSV with patient_id and part), to audit
  --patient-ids WORD   checked: doubtful ids stop; trusted: they are flagged; study: every study counts as a patient of its own
  --disagreement WORD  where the label of a scan contradicts those of its slices: stop; unknown: neither counts
  --unmatched WORD     where labels and images do not match: stop; or leave out, and count: labels (whose image is not there),
                       images (that have no label), both
  --size 256           side of the network's input in pixels
  --crop head          smallest square around the head; or center: the middle, at its own resolution; or none
  --clip LOW HIGH      keep HU between these only, for example -250 450: a third of the space, for a model whose windows
                       all lie between; left out: all
  --choices CSV        series to take where the rules would take another: columns study (UID, accession number or folder)
                       and series (UID or description); DIR/private/series.csv lists what was taken, and why
  --vocabulary FILE    words by which your hospital calls its series, beside the library's own: a CSV with the columns kind,
                       language and word (docs/reading.md)
  --workers N          processes; left out: one per processor
  --cluster ADDRESS    work on the cluster of this dask scheduler (tcp://HOST:PORT) instead of on this machine; the paths
                       must be the same there
  --project-key FILE   key for the ids; left out: the user's own
  --debug              show the traceback of an error
  --version

Then: ich-train --data.root DIR --data.labels CSV
Exit codes: 0 done, 1 failed (or no CT at all, or the audit stops), 2 wrong usage, 3 something was refused.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command("ich-prepare", HELP, _prepare, argv, whole=WHOLE)


def _prepare(arguments: list[str]) -> int:
    parser = OptionParser("ich-prepare")
    parser.add_argument("path", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--labels", type=Path, nargs="+")
    parser.add_argument("--truth", default=argparse.SUPPRESS)
    parser.add_argument("--repair-any", action="store_true")
    parser.add_argument("--size", type=int, default=argparse.SUPPRESS)
    parser.add_argument("--crop", default=argparse.SUPPRESS)
    parser.add_argument("--clip", type=int, nargs=2, default=argparse.SUPPRESS)
    parser.add_argument("--choices", type=Path)
    parser.add_argument("--vocabulary", type=Path)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--project-key", type=Path)
    parser.add_argument("--cluster")
    add_audit_options(parser)
    given = parser.parse(arguments)
    check_audit_options(parser, given)
    from ich_lstm.reading.terms.word_table import use_vocabulary

    use_vocabulary(given.vocabulary)
    if given.check:
        return _check_labelled(given) if given.labels else _check(given)
    if given.out is None:
        parser.error("--out is missing")
    from ich_lstm.privacy import ProjectKey

    out, key = console(), ProjectKey.open(given.project_key)
    labels = _read_labels(given) if given.labels else None
    prepared = _cache_scans(given, given.out, labels, key)
    counts = prepared.manifest
    out.print(counts["summary"])
    # A NIfTI file names nobody; the labels do.
    whose = f" of {counts['patients']:,} patients" if counts["patients"] else ""
    out.print(f"{counts['scans']:,} scans{whose}, {counts['slices']:,} slices, in {given.out}")
    if labels is not None:
        audit_prepared(prepared, labels, given, key=key, folder=given.out, out=out)
    return SOME_FAILED if counts["files"]["refused"] else DONE


def _read_labels(given: argparse.Namespace) -> "LabelTable":
    from ich_lstm.data.labels.table import read_label_tables

    truth = {"truth": given.truth} if "truth" in given else {}
    return read_label_tables(given.labels, repair_any=given.repair_any, **truth)


def _cache_scans(given: argparse.Namespace, folder: Path, labels: "LabelTable | None", key: "ProjectKey") -> "PreparedFolder":
    from ich_lstm.data.labels.choices import read_choices
    from ich_lstm.data.prepare.prepare import prepare
    from ich_lstm.preprocessing.crop_and_resize import Preprocessing

    preprocessing = Preprocessing(**{name: getattr(given, name) for name in ("size", "crop", "clip") if name in given})
    choices = read_choices(given.choices) if given.choices else None
    with workforce(given.cluster, given.workers) as force, progress_bar(console()) as tell:
        return prepare(
            given.path,
            folder,
            preprocessing=preprocessing,
            key=key,
            labels=labels,
            choices=choices,
            workers=force.workers,
            executor=force.executor,
            progress=tell,
            exclude=given.out,
        )


def _check_labelled(given: argparse.Namespace) -> int:
    """Read scans and labels as a training would, and keep the ledger and the audit."""
    from ich_lstm.data.prepared.folder import LEDGER_TABLE, PreparedFolder
    from ich_lstm.errors import SourceError
    from ich_lstm.privacy import PRIVATE, ProjectKey, private_folder

    out, key = console(), ProjectKey.open(given.project_key)
    labels = _read_labels(given)
    if PreparedFolder.is_one(given.path):
        audit_prepared(PreparedFolder.open(given.path), labels, given, key=key, folder=given.out, out=out)
        return DONE
    if "size" not in given:
        given.size = CHECK_SIZE
    with folder_to_check(given.out) as folder:
        made = folder / PRIVATE / LEDGER_TABLE
        try:
            prepared = _cache_scans(given, folder, labels, key)
        except SourceError as error:
            if not made.exists():
                raise
            # What it says of the ledger is of a folder that is gone when somebody reads it.
            todo = "Name --out to keep the ledger, which has the reason for each file."
            if given.out is not None:
                kept = shutil.copy(made, private_folder(given.out))
                todo = f"{kept} has the reason for each file."
            raise SourceError(error.code, where=str(given.path), got=error.got, expected=error.expected, todo=todo) from error
        out.print(prepared.manifest["summary"])
        if given.out is not None:
            shutil.copy(made, private_folder(given.out))
        audit_prepared(prepared, labels, given, key=key, folder=given.out, out=out)
    return SOME_FAILED if prepared.manifest["files"]["refused"] else DONE


def _check(given: argparse.Namespace) -> int:
    from ich_lstm.privacy import private_folder
    from ich_lstm.reading.index.check import check_source

    out = console()
    private = private_folder(given.out) if given.out else None
    with workforce(given.cluster, given.workers) as force, progress_bar(out) as tell:
        index = check_source(
            given.path,
            workers=force.workers,
            executor=force.executor,
            folder=private / "index" if private else None,
            progress=tell,
            exclude=given.out,
        )
    out.print(index.ledger.summary(scans=index.scans))
    if private:
        index.ledger.write_csv(private / "ledger.csv")
        out.print(f"What became of each file: {private / 'ledger.csv'}")
    counts = index.ledger.counts()
    if not len(index.headers) and not counts["used"]:
        return FAILED
    return SOME_FAILED if counts["refused"] else DONE


if __name__ == "__main__":
    sys.exit(main())
