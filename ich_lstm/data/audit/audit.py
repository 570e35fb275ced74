"""Audit of labelled scans before training: data leaks, contradictory labels, doubtful patient identities, unusual scans."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ich_lstm.data.audit.checks import (
    UNDIVIDED,
    AuditInputs,
    find_absent_labels,
    find_contradictions,
    find_doubtful_patients,
    find_images_without_label,
    find_labels_never_absent,
    find_labels_without_image,
    find_notes,
    find_patients_in_two_subsets,
    find_refused,
    find_same_pixels,
    find_several_series,
    find_unknown,
    find_unusual,
)
from ich_lstm.data.audit.findings import CHECKS, Finding
from ich_lstm.data.audit.montage import choose_tiles
from ich_lstm.data.audit.summary import FACTS, summarize_audit
from ich_lstm.data.joining.join import LabelledScan, PatientIds
from ich_lstm.data.joining.locate import LocatedLabels
from ich_lstm.data.prepared.folder import PreparedFolder, name_private
from ich_lstm.data.split.split_file import SplitFile
from ich_lstm.data.tables.labelled import Unmatched
from ich_lstm.errors import AuditError
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.csv_table import write_csv
from ich_lstm.pages.audit_page import audit_page
from ich_lstm.privacy import ProjectKey, private_folder

AUDIT_PAGE, AUDIT_JSON, AUDIT_ROWS = "audit.html", "audit.json", "audit_rows.csv"


@dataclass(frozen=True, eq=False)
class Audit:
    """The findings of an audit of labelled scans.

    Args:
        findings: Findings that stop a training or that a reader should know, in the order of `CHECKS`.
        summary: Counts and histograms as plain values without any identity.
        scans: The scans of each subset.
        flags: The flags of each scan, by the name of its cached file.
    """

    findings: tuple[Finding, ...]
    summary: Mapping[str, Any] = field(repr=False)
    scans: Mapping[str, Sequence[LabelledScan]] = field(repr=False)
    flags: Mapping[str, str] = field(repr=False)

    @property
    def stops(self) -> tuple[Finding, ...]:
        """The findings that forbid training."""
        return tuple(finding for finding in self.findings if finding.action == "STOP")

    def stop(self) -> None:
        """Raise an error if any finding forbids training.

        Raises:
            AuditError: If there is a finding with the action STOP; the error has the code of the first one.
        """
        if not self.stops:
            return
        todo = {finding.code: CHECKS[finding.code].todo for finding in self.stops}
        if todo.keys() >= {"images_without_label", "labels_without_image"}:
            todo["images_without_label"] = "Complete the labels and the images, or exclude both on purpose: [unmatched=both]."
            del todo["labels_without_image"]
        raise AuditError(
            self.stops[0].code,
            where="audit",
            got="; ".join(finding.text for finding in self.stops),
            expected="no such finding",
            todo=" ".join(dict.fromkeys(todo.values())),
        )

    def write(self, folder: Path) -> Path:
        """Write ``audit.html`` and ``audit.json``, which may be shared, and ``private/audit_rows.csv`` with the raw ids.

        Args:
            folder: The folder of a run, or a prepared folder.

        Returns:
            The path of ``audit.html``.
        """
        rows = [finding.rows.assign(code=finding.code, action=finding.action) for finding in self.findings]
        table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["action", "code"])
        order = ["action", "code", *(column for column in table if column not in ("action", "code"))]
        write_csv(private_folder(folder) / AUDIT_ROWS, table[order])
        if PreparedFolder.is_one(folder):
            name_private(folder, AUDIT_ROWS)
        write_text(folder / AUDIT_JSON, json.dumps(self.summary, indent=1) + "\n")
        # Only the numbers of held-out patients should be seen, never their images.
        tiles = choose_tiles(self.scans.get("train") or self.scans.get(UNDIVIDED) or [], dict(self.flags))
        page = folder / AUDIT_PAGE
        write_text(page, audit_page(self.summary, FACTS, tiles))
        return page


def audit_scans(
    scans: Mapping[str, Sequence[LabelledScan]],
    folder: PreparedFolder,
    located: LocatedLabels,
    *,
    patient_ids: PatientIds = "checked",
    unmatched: Unmatched = "stop",
    split: SplitFile | None = None,
    fold: int = 0,
    key: ProjectKey | None = None,
) -> Audit:
    """Check labelled scans. The checks work on tables, so that auditing all of RSNA takes seconds.

    Args:
        scans: The scans of each subset, or all of them as subset ``all``.
        folder: The prepared folder that holds the scans.
        located: The labels, with the images that they reference.
        patient_ids: What happens if ids seem not to tell patients apart: ``checked`` stops, ``trusted`` flags them, and ``study``
            skips the check, because every study counts as a patient of its own.
        unmatched: What may be excluded: labels whose image is missing (``labels``), images that the table does not mention
            (``images``), or ``both``.
        split: How patients were divided into subsets or folds.
        fold: The held-out fold, if the split has folds.
        key: The project's key, from which a shareable id of the split is made.
    """
    inputs = AuditInputs(scans, folder, located)
    found = (
        *find_patients_in_two_subsets(inputs),
        *find_same_pixels(inputs),
        *find_contradictions(inputs),
        find_images_without_label(inputs, allowed=unmatched in ("images", "both")),
        *find_labels_without_image(inputs, allowed=unmatched in ("labels", "both")),
        *find_doubtful_patients(inputs, patient_ids),
        find_unknown(inputs),
        find_refused(inputs),
        find_absent_labels(inputs),
        find_labels_never_absent(inputs),
        find_several_series(inputs),
        *find_unusual(inputs),
        *find_notes(inputs),
    )
    findings = sorted((finding for finding in found if finding is not None), key=lambda finding: list(CHECKS).index(finding.code))
    split_id = key.hash_id(split.digest) if key and split else ""
    summary = summarize_audit(inputs, findings, split=split, fold=fold, split_id=split_id)
    flags = dict(zip(folder.facts["cache"], folder.facts["flags"], strict=True))
    return Audit(tuple(findings), summary, scans, flags)
