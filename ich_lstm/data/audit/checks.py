"""The checks of the audit, each a function of the information about all scans."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ich_lstm.data.audit.findings import Finding, make_finding
from ich_lstm.data.joining.join import LabelledScan, PatientIds
from ich_lstm.data.joining.locate import LocatedLabels
from ich_lstm.data.prepared.folder import NO_LABEL, PreparedFolder
from ich_lstm.labels import ANY, LABELS, never_absent, unions_of
from ich_lstm.reading.header.examinations import ANONYMOUS

UNDIVIDED = "all"
"""The name of the one subset that holds all scans where there is no split."""

IDS = ["subset", "scan_id", "patient_id", "study_uid", "series_uid"]
"""The columns of a private row that identify a scan."""

SHARED_STUDIES, SHARED_SHARE, MOST_STUDIES = 5, 0.2, 100
"""One patient may have a dozen head CTs, but neither a fifth of all studies nor a hundred of them."""

UNUSUAL: dict[str, dict[str, tuple[float, float]]] = {
    "unusual_slices": {"slices": (12, 120)},
    "unusual_spacing": {"slice_mm": (0.4, 7.6)},
    "unusual_thickness": {"thickness_mm": (0.4, 7.6)},
    "unusual_pixels": {"pixel_mm": (0.3, 1.0)},
    # At least 1 % of the picture is air, half of it is no denser than blood, and at least 1 % is bone.
    "unusual_hu": {"hu_p1": (-1024, -200), "hu_p50": (-1024, 100), "hu_p99": (200, 3071)},
}
"""Codes, and the ranges outside which a property of a scan is flagged: values implausible for head CT, not merely rare ones."""


class AuditInputs:
    """The information about all scans, in tables.

    Args:
        subsets: The labelled scans of each subset.
        folder: The prepared folder that holds the scans.
        located: The labels, with the images that they reference.
    """

    def __init__(self, subsets: Mapping[str, Sequence[LabelledScan]], folder: PreparedFolder, located: LocatedLabels) -> None:
        known = [scan for scans in subsets.values() for scan in scans]
        self.folder = folder
        self.located = located
        self.scans = pd.DataFrame(
            {
                "subset": [subset for subset, scans in subsets.items() for _ in scans],
                "scan_id": [scan.scan_id for scan in known],
                "patient_id": [scan.patient_id for scan in known],
                "study_uid": [scan.study_uid for scan in known],
                "series_uid": [scan.series_uid for scan in known],
                "cache": [scan.cache_path.name for scan in known],
            }
        )
        """One row per labelled scan: `IDS`, ``cache``, and the prepared folder's facts."""
        new = [column for column in folder.facts if column not in self.scans]
        self.scans = self.scans.merge(folder.facts[["cache", *new]], on="cache", how="left")
        self.scan_labels = np.array([scan.scan_labels for scan in known], np.float32).reshape(-1, len(LABELS))
        """Labels of the scans, ``(scans, k)``."""
        self.slice_labels = np.concatenate([scan.slice_labels for scan in known] or [self.scan_labels])
        """Labels of the slices of all labelled scans in a row, ``(n, k)``."""
        self.scan_of = np.repeat(np.arange(len(known)), [len(scan.slice_labels) for scan in known])
        """The row of each slice's scan, ``(n,)``."""
        self.slice_hashes = np.array([digest for scan in known for digest in scan.slice_hashes], dtype=object)
        """The hash of each slice's HU, ``(n,)``; empty for a constant slice."""

    def name_scans(self, rows: pd.DataFrame) -> list[str]:
        """Name scans as a shareable list shows them."""
        subsets = rows["subset"].map(lambda subset: "" if subset == UNDIVIDED else f" ({subset})")
        return (rows["scan_id"] + subsets).tolist()


def find_patients_in_two_subsets(inputs: AuditInputs) -> Iterable[Finding | None]:
    """Find patients, and studies, whose scans are in more than one subset."""
    for code, column in (("patient_in_two_parts", "patient_id"), ("study_in_two_parts", "study_uid")):
        scans = inputs.scans[inputs.scans[column] != ""]
        rows = scans[scans.groupby(column)["subset"].transform("nunique") > 1].sort_values(column)
        names = pd.Series(inputs.name_scans(rows), index=rows.index, dtype=object)
        yield make_finding(code, rows[IDS], [" and ".join(of_one) for _, of_one in names.groupby(rows[column])])


def find_same_pixels(inputs: AuditInputs) -> Iterable[Finding | None]:
    """Find pairs of scans that share slices, within a subset and across subsets; constant slices do not count."""
    slices = pd.DataFrame({"digest": inputs.slice_hashes, "scan": inputs.scan_of})
    slices = slices[slices["digest"] != ""]
    slices = slices[slices["digest"].duplicated(keep=False)]
    slices["first"] = slices.groupby("digest")["scan"].transform("min")
    again = slices[(slices["scan"] != slices["first"]) | slices.duplicated()]
    pairs = again.groupby(["first", "scan"]).size().rename("slices").reset_index()
    one, other = (inputs.scans.iloc[pairs[column]].reset_index(drop=True) for column in ("first", "scan"))
    rows = one[IDS].join(other[IDS].add_suffix("_other")).assign(slices=pairs["slices"])
    texts = pd.Series(
        [
            f"{a} and {b}: {count} slices" if a != b else f"{a}: {count} slices twice"
            for a, b, count in zip(inputs.name_scans(one), inputs.name_scans(other), pairs["slices"], strict=True)
        ],
        dtype=object,
    )
    crosses = (one["subset"] != other["subset"]).to_numpy()
    yield make_finding("pixels_in_two_parts", rows[crosses], texts[crosses].tolist())
    yield make_finding("same_pixels", rows[~crosses], texts[~crosses].tolist())


def find_contradictions(inputs: AuditInputs) -> Iterable[Finding | None]:
    """Find scans in which "any" and the types contradict each other."""
    of_any = LABELS.index(ANY)
    wrong, bare = (np.zeros(len(inputs.scans), bool) for _ in range(2))
    for labels, scan_of in ((inputs.scan_labels, slice(None)), (inputs.slice_labels, inputs.scan_of)):
        given, follows = labels[:, of_any], unions_of(labels)[:, of_any]
        wrong[np.arange(len(wrong))[scan_of][(follows == 1) & (given == 0)]] = True
        bare[np.arange(len(bare))[scan_of][(follows == 0) & (given == 1)]] = True
    for code, chosen in (("any_contradicts_types", wrong), ("any_without_type", bare)):
        rows = inputs.scans[chosen]
        yield make_finding(code, rows[IDS], inputs.name_scans(rows))


def find_images_without_label(inputs: AuditInputs, *, allowed: bool) -> Finding | None:
    """Find slices that no row of the table labels, by themselves or with their scan, including those of series not prepared.

    Args:
        inputs: The information about all scans.
        allowed: Whether an option allows these slices to be excluded.
    """
    images, at_slice, at_scan = inputs.located.images, inputs.located.slice, inputs.located.scan
    key, scan_of = images.key, images.scan
    spoken_of = np.isin(np.arange(len(key)), at_slice) | np.isin(scan_of, at_scan[at_slice < 0])
    silent = key[~spoken_of]
    whole = np.bincount(scan_of)
    scans, firsts, counts = np.unique(scan_of[~spoken_of], return_index=True, return_counts=True)
    texts = [
        f"{scan_id} ({f'{count} of {of}' if count < of else f'all {of}'} slices)"
        for scan_id, count, of in zip(silent["scan_id"].iloc[firsts], counts, whole[scans], strict=True)
    ]
    passed = inputs.folder.unprepared[inputs.folder.unprepared["code"] == NO_LABEL]
    if len(passed):
        texts = [f"{len(passed):,} files of {passed['series_uid'].nunique():,} series that were not prepared", *texts]
    columns = ["scan_id", "patient_id", "study_uid", "series_uid", "sop_uid"]
    listed = pd.concat([silent[columns], passed[["series_uid", "sop_uid"]]])
    return make_finding("images_without_label", listed, texts, count=len(silent) + len(passed), allowed=allowed)


def find_labels_without_image(inputs: AuditInputs, *, allowed: bool) -> Iterable[Finding | None]:
    """Find labels whose image is missing, and labels whose image was excluded.

    Args:
        inputs: The information about all scans.
        allowed: Whether labels may reference missing images.
    """
    located = inputs.located
    for code, chosen in (("labels_without_image", located.unmatched), ("labels_left_out", located.excluded)):
        found = located.table.rows[chosen]
        lines = [f"line {line}" for line in found["line"]]
        yield make_finding(code, found[["kind", "name", "line"]], lines, allowed=allowed)


def find_unknown(inputs: AuditInputs) -> Finding | None:
    """Find scans that the table mentions without giving any label; they are in no subset."""
    images, at_scan = inputs.located.images, inputs.located.scan
    firsts = images.key.iloc[images.first]
    spoken_of = np.isin(np.arange(len(firsts)), at_scan[at_scan >= 0])
    rows = firsts[spoken_of & ~firsts["cache"].isin(inputs.scans["cache"]).to_numpy()]
    columns = [column for column in IDS if column != "subset"]
    return make_finding("scan_unknown", rows[columns], rows["scan_id"].tolist())


def find_doubtful_patients(inputs: AuditInputs, patient_ids: PatientIds) -> Iterable[Finding | None]:
    """Find patient ids that identify nobody, that too many studies share, or that are spelt nearly alike.

    Args:
        inputs: The information about all scans.
        patient_ids: What happens to such ids: ``checked`` stops, ``trusted`` flags them, and ``study`` skips the check, because
            the ids were not used.
    """
    if patient_ids == "study":
        return
    trusted = patient_ids == "trusted"
    scans = inputs.scans
    anonymous = scans["patient_id"].str.strip().str.fullmatch(ANONYMOUS, case=False)
    rows = scans[anonymous]
    yield make_finding("patient_id_anonymous", rows[IDS], inputs.name_scans(rows), allowed=trusted)

    studies = scans[~anonymous].groupby("patient_id")["study_uid"].nunique()
    limit = max(SHARED_STUDIES, SHARED_SHARE * scans["study_uid"].nunique())
    shared = studies[(studies > limit) | (studies > MOST_STUDIES)].sort_values(ascending=False)
    rows = scans[scans["patient_id"].isin(shared.index)]
    firsts = rows.groupby("patient_id")["scan_id"].first().reindex(shared.index)
    texts = [f"{count:,} studies, one of them that of scan {scan_id}" for count, scan_id in zip(shared, firsts, strict=True)]
    yield make_finding("patient_id_shared", rows[IDS], texts, allowed=trusted)

    patients = scans.drop_duplicates("patient_id").sort_values("patient_id")
    bare = patients["patient_id"].str.casefold().str.replace(r"[\W_]", "", regex=True)
    bare = bare.str.replace(r"^(\D*)0+(?=\d)", r"\1", regex=True)
    alike = patients[bare.duplicated(keep=False) & (bare != "")]
    names = pd.Series(inputs.name_scans(alike), index=alike.index, dtype=object)
    yield make_finding(
        "patient_ids_alike", alike[IDS], ["patients of " + " and ".join(of_one) for _, of_one in names.groupby(bare)]
    )


def find_absent_labels(inputs: AuditInputs) -> Finding | None:
    """Find labels for which a subset has no positive patient."""
    present = (
        pd.DataFrame(inputs.scan_labels == 1, columns=list(LABELS)).groupby(inputs.scans["subset"].to_numpy(), sort=False).any()
    )
    absent = {label: present.index[~present[label]].tolist() for label in LABELS}
    texts = [
        label + ("" if subsets == [UNDIVIDED] else f" in {', '.join(subsets)}") for label, subsets in absent.items() if subsets
    ]
    return make_finding("label_absent", pd.DataFrame({"detail": texts}), texts)


def find_labels_never_absent(inputs: AuditInputs) -> Finding | None:
    """Find labels that are known as present in training, and never as absent, neither of slices nor of scans."""
    subset_of = inputs.scans["subset"].to_numpy()
    trains = np.isin(subset_of, ["train", UNDIVIDED])
    labels = np.concatenate([inputs.scan_labels[trains], inputs.slice_labels[trains[inputs.scan_of]]])
    names = [label for label, found in zip(LABELS, never_absent(labels), strict=True) if found]
    return make_finding("label_never_absent", pd.DataFrame({"detail": names}), names)


def find_several_series(inputs: AuditInputs) -> Finding | None:
    """Find studies with more than one labelled scan."""
    rows = inputs.scans[inputs.scans.duplicated("study_uid", keep=False)].sort_values("study_uid")
    texts = [" and ".join(of_one) for _, of_one in rows["scan_id"].groupby(rows["study_uid"])]
    return make_finding("several_series", rows[IDS], texts)


def find_unusual(inputs: AuditInputs) -> Iterable[Finding | None]:
    """Find scans with properties that head CT does not have."""
    scans = inputs.scans
    for code, ranges in UNUSUAL.items():
        outside = {column: (scans[column] < low) | (scans[column] > high) for column, (low, high) in ranges.items()}
        chosen = np.logical_or.reduce(list(outside.values()))
        rows = scans[chosen]
        # (scans,) of lists: the unusual values of each scan, "3000" or "3000, -1024"
        values = rows[list(ranges)].where(pd.DataFrame(outside)[chosen]).to_numpy(float).tolist()
        texts = [
            f"{scan_id} ({', '.join(f'{value:.4g}' for value in row if value == value)})"
            for scan_id, row in zip(rows["scan_id"], values, strict=True)
        ]
        yield make_finding(code, rows[[*IDS, *ranges]], texts)


def find_refused(inputs: AuditInputs) -> Finding | None:
    """Find series that were expected to give a scan and did not."""
    refused = inputs.folder.unprepared[inputs.folder.unprepared["action"] == "refused"]
    # Series with a prepared scan do not count, even if single slices of them could not be read.
    refused = refused[~refused["series_uid"].isin(inputs.folder.key["series_uid"])]
    series = refused[(refused["series_uid"] == "") | ~refused["series_uid"].duplicated()]
    counts = series["code"].value_counts()
    texts = [f"{code}: {count:,}" for code, count in counts.items()]
    return make_finding("scan_refused", refused, texts, count=len(series))


def find_notes(inputs: AuditInputs) -> Iterable[Finding | None]:
    """Report the notes made while reading the table, and whether the heads are synthetic."""
    flags = list(inputs.located.table.flags)
    yield make_finding("table_note", pd.DataFrame({"detail": flags}), flags)
    if inputs.folder.manifest.get("synthetic"):
        yield make_finding("synthetic", pd.DataFrame(), ["all of them"], count=len(inputs.scans))
