"""ich-prepare: reads a tree of head CT once, accounts for every file, and caches the scans."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ich_lstm.cli.console import DONE, FAILED, SOME_FAILED, OptionParser, console, progress_bar, run_command
from ich_lstm.cli.preparing.audit import add_audit_options, audit_prepared, check_audit_options, folder_to_check
from ich_lstm.cli.preparing.cluster import workforce

if TYPE_CHECKING:
    from ich_lstm.data.prepared.folder import PreparedFolder
    from ich_lstm.data.tables.labelled import LabelTable
    from ich_lstm.privacy import ProjectKey

CHECK_SIZE = 128
"""Side length in pixels of the scans that a check prepares and discards: enough for thumbnails, half a megabyte per scan."""

WHOLE = "The scans in the cache are complete and will not be prepared again."

HELP = """
ich-prepare PATH --out DIR [--labels CSV ...] [--size 256] [--crop head]
ich-prepare PATH --check [--labels CSV ...] [--out DIR]

Read a folder or archive of head CT, choose a series per study, and cache the scans for training. Every file gets a row in
DIR/private/ledger.csv: used, skipped or refused, with the reason.

  --out DIR            output folder; if ich-prepare was stopped, the same command resumes it
  --check              read all files as a prediction does, including pixels, report the result, and cache no scan; with
                       --out, the ledger is written to DIR/private. With --labels: read as a training does, and audit the
                       labels (with --out: DIR/audit.html); PATH may then also be a prepared folder
  --labels CSV         prepare only labelled studies, and audit them (DIR/audit.html); left out: all studies, no audit.
                       Several tables are read as one
  --corrections CSV    corrections that override the labels in the audit; several tables are read as one
  --truth majority     which of CQ500's readers must have marked a finding; or unanimous, any, R1, R2, R3
  --repair-any         set "any" to 1 where a type is 1 and "any" is 0
  --split-file FILE    split to audit: split.json of a run, or a CSV with patient_id and subset
  --patient-ids WORD   checked: doubtful ids stop the command; trusted: they are flagged; study: every study counts as a
                       patient of its own
  --disagreement WORD  where the label of a scan contradicts those of its slices: stop, or unknown (both become unknown)
  --unmatched WORD     where labels and images do not match: stop, or exclude and count labels (without an image), images
                       (without a label), or both
  --size 256           side length of the network's input in pixels
  --crop head          smallest square around the head; or center: the middle at native resolution; or none
  --clip LOW HIGH      clip HU to this range, for example -250 450: a third of the space, for a model whose windows lie
                       inside it; left out: no clipping
  --choices CSV        series to use instead of those that the rules choose: columns study (UID, accession number or folder)
                       and series (UID or description); DIR/private/series.csv lists the choices and their reasons
  --vocabulary FILE    your hospital's own words for series, added to the library's: a CSV with the columns kind, language
                       and word (docs/reading.md)
  --workers N          number of processes; left out: one per processor
  --cluster ADDRESS    run on the cluster of this dask scheduler (tcp://HOST:PORT) instead of this machine; the paths must be
                       the same there
  --project-key FILE   key for the hashed ids; left out: the user's own
  --debug              show the traceback of an error
  --version

Then: ich-train --data.root DIR --data.labels CSV
Exit codes: 0 done, 1 failed (or found no CT, or the audit stopped), 2 wrong usage, 3 a file was refused.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ich-prepare.

    Args:
        argv: Arguments of the command; None for those of the process.

    Returns:
        The exit code.
    """
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
    # A NIfTI file names no patient; only the labels do.
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
    with workforce(given.cluster, given.workers) as force, progress_bar(console()) as progress:
        return prepare(
            given.path,
            folder,
            preprocessing=preprocessing,
            key=key,
            labels=labels,
            choices=choices,
            workers=force.workers,
            executor=force.executor,
            progress=progress,
            exclude=given.out,
        )


def _check_labelled(given: argparse.Namespace) -> int:
    """Read scans and labels as a training does, and write the ledger and the audit."""
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
            # The error points to a ledger in the temporary folder, which is about to be deleted.
            todo = "Name --out to keep the ledger, which has the reason for each file."
            if given.out is not None:
                kept = _keep(made, private_folder(given.out))
                todo = f"{kept} has the reason for each file."
            raise SourceError(error.code, where=str(given.path), got=error.got, expected=error.expected, todo=todo) from error
        out.print(prepared.manifest["summary"])
        if given.out is not None:
            _keep(made, private_folder(given.out))
        audit_prepared(prepared, labels, given, key=key, folder=given.out, out=out)
    return SOME_FAILED if prepared.manifest["files"]["refused"] else DONE


def _keep(made: Path, private: Path) -> Path:
    """Copy a file into a private folder, and return the path of the copy."""
    from ich_lstm.files.atomic_write import write_bytes

    kept = private / made.name
    write_bytes(kept, made.read_bytes())
    return kept


def _check(given: argparse.Namespace) -> int:
    from ich_lstm.privacy import private_folder
    from ich_lstm.reading.index.check import check_source

    out = console()
    private = private_folder(given.out) if given.out else None
    with workforce(given.cluster, given.workers) as force, progress_bar(out) as progress:
        index = check_source(
            given.path,
            workers=force.workers,
            executor=force.executor,
            folder=private / "index" if private else None,
            progress=progress,
            exclude=given.out,
        )
    out.print(index.ledger.summary(scans=index.scans))
    if private:
        index.ledger.write_csv(private / "ledger.csv")
        out.print(f"Ledger of all files: {private / 'ledger.csv'}")
    counts = index.ledger.counts()
    if not len(index.headers) and not counts["used"]:
        return FAILED
    return SOME_FAILED if counts["refused"] else DONE


if __name__ == "__main__":
    sys.exit(main())
