"""The audit as part of a command: its options, its files, and its summary in one line."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ich_lstm.cli.console import OptionParser

if TYPE_CHECKING:
    from rich.console import Console

    from ich_lstm.data.audit.audit import Audit
    from ich_lstm.data.prepared.folder import PreparedFolder
    from ich_lstm.data.tables.labelled import LabelTable
    from ich_lstm.privacy import ProjectKey


def add_audit_options(parser: OptionParser) -> None:
    """Add the options of ich-prepare that change what is audited and what stops the command."""
    parser.add_argument("--corrections", type=Path, nargs="+")
    parser.add_argument("--split-file", type=Path)
    parser.add_argument("--patient-ids", choices=("checked", "trusted", "study"), default=argparse.SUPPRESS)
    parser.add_argument("--disagreement", choices=("stop", "unknown"), default=argparse.SUPPRESS)
    parser.add_argument("--unmatched", choices=("stop", "labels", "images", "both"), default=argparse.SUPPRESS)


def check_audit_options(parser: OptionParser, given: argparse.Namespace) -> None:
    """Refuse the options of the audit if there are no labels to audit.

    Raises:
        ConfigError: If an option of the audit is given without ``--labels``.
    """
    words = {"patient_ids", "disagreement", "unmatched"} & vars(given).keys()
    if not given.labels and (words or given.corrections or given.split_file):
        parser.error("--corrections, --split-file, --patient-ids, --disagreement and --unmatched need --labels, which is missing")


def report_audit(audit: "Audit", folder: Path | None, out: "Console") -> None:
    """Write the files of an audit and print a summary of its flags; the error that follows lists what stops.

    Args:
        audit: Findings of the audit.
        folder: Folder of the run, or the prepared folder; None to write nothing.
        out: Console that prints the summary.
    """
    from ich_lstm.data.audit.audit import AUDIT_ROWS
    from ich_lstm.privacy import private_folder

    page = None if folder is None else audit.write(folder)
    flags = [f"{finding.code} {finding.count:,}" for finding in audit.findings if finding.action == "FLAG"]
    out.print(
        f"Audit: {len(audit.stops)} stop, {len(flags)} flagged"
        + (f" ({', '.join(flags)})" if flags else "")
        + (f". {page}; raw ids in {private_folder(folder) / AUDIT_ROWS}" if page and folder else "")
    )


def audit_prepared(
    prepared: "PreparedFolder",
    labels: "LabelTable",
    given: argparse.Namespace,
    *,
    key: "ProjectKey",
    folder: Path | None,
    out: "Console",
) -> None:
    """Audit prepared scans as a training does; patients are divided only if a split file is given.

    Args:
        prepared: The prepared scans.
        labels: Labels of the scans, before the corrections named by the options.
        given: Options of `add_audit_options`.
        key: Key of the project.
        folder: Folder for the files of the audit; None to write nothing.
        out: Console that prints the summary.

    Raises:
        TableError: If the labels do not fit the images.
        SplitError: If the split file cannot be read as one.
        AuditError: If a finding forbids training on these scans.
    """
    from ich_lstm.data.audit.audit import audit_scans
    from ich_lstm.data.audit.checks import UNDIVIDED
    from ich_lstm.data.joining.join import join_labels
    from ich_lstm.data.joining.locate import locate_labels
    from ich_lstm.data.labels.corrections import apply_corrections, read_corrections
    from ich_lstm.data.split.assign import tabulate_patients
    from ich_lstm.data.split.split_file import SplitFile

    if given.corrections:
        labels = apply_corrections(labels, read_corrections(given.corrections, repair_any=given.repair_any))
    whose = {"patient_ids": given.patient_ids} if "patient_ids" in given else {}
    doubt = {"disagreement": given.disagreement} if "disagreement" in given else {}
    for flag in labels.flags:
        out.print(f"{labels.source.name}: {flag}")
    located = locate_labels(labels, prepared.images)
    located.check_unmatched("both")  # the audit reports unmatched labels and images, and stops if it must
    known = join_labels(located, **whose, **doubt).scans(prepared.cache)
    split = SplitFile.read(given.split_file).extended(tabulate_patients(known)) if given.split_file else None
    audit = audit_scans(
        {UNDIVIDED: known} if split is None else {str(part): mine for part, mine in split.divide(known).items()},
        prepared,
        located,
        **whose,
        **({"unmatched": given.unmatched} if "unmatched" in given else {}),
        split=split,
        key=key,
    )
    report_audit(audit, folder, out)
    audit.stop()


@contextmanager
def folder_to_check(out: Path | None) -> Iterator[Path]:
    """Yield a temporary folder for scans that are prepared only to be checked.

    Args:
        out: Parent of the folder; None uses the system's folder for temporary files.
    """
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=".check-") as folder:
        yield Path(folder)
