"""Identifiers that labels may reference although no scan was prepared, each with its reason in the ledger."""

from pathlib import Path

import pandas as pd

from ich_lstm.data.prepare.prepare_scan import ScanDone
from ich_lstm.data.prepare.wanted_series import Choice, SeriesChooser, study_names
from ich_lstm.data.prepared.file_names import folders_of, path_name, relative_name, slice_name
from ich_lstm.reading import Ledger, Series, Study
from ich_lstm.reading.ledger.header_table import values_of

DAMAGED_FILES = frozenset({"empty_file", "truncated_header"})
"""Reasons for skipping a file that may once have been an image."""


def excluded_names(
    chosen: list[tuple[Study, Choice]], results: list[ScanDone], chooser: SeriesChooser, ledger: Ledger, root: Path
) -> pd.DataFrame:
    """Identifiers that labels may reference although no scan was prepared; see `PreparedFolder.images`.

    Args:
        chosen: The series that were chosen, each with its study.
        results: The result of preparing each of them.
        chooser: The chooser, which knows the studies without a chosen series.
        ledger: The ledger of the source.
        root: The folder to which names of files are relative.

    Returns:
        A table with the columns of `ImageTable.excluded`: ``name``; and ``study_uid``, which is empty, or the study whose scan
        was made from another series.
    """
    studies = {study.identifier: study for study, _ in chosen}
    made = {study.identifier for (study, _), result in zip(chosen, results, strict=True) if result.key is not None}
    taken = {id(choice.series) for _, choice in chosen}
    names = _names_of_files(ledger, root)
    for (_, choice), result in zip(chosen, results, strict=True):
        names |= _names_of_lacking_slices(choice.series, result, root)
    for study in (*chooser.unusable, *(study for uid, study in studies.items() if uid not in made)):
        names |= study_names(study, root)
        names.update(*(_names_of_slices(series, root) for series in study.series))
    for study in chooser.unlabelled:
        names -= study_names(study, root)
    not_chosen = {
        name: study.study_uid
        for uid, study in studies.items()
        if uid in made
        for series in study.series
        if id(series) not in taken
        for name in _names_of_slices(series, root)
    }
    rows = [*((name, "") for name in sorted(names)), *sorted(not_chosen.items())]
    table = pd.DataFrame(rows, columns=["name", "study_uid"], dtype=object)
    return table[table["name"] != ""]


def _names_of_files(ledger: Ledger, root: Path) -> set[str]:
    """The names of refused files, and of files without a readable header together with the folders above them."""
    names: set[str] = set()
    for row in ledger.rows():
        if row.action != "refused" and row.code not in DAMAGED_FILES:
            continue
        file = path_name(row.path, root)
        names |= {row.sop_uid, row.series_uid, file}
        if not row.series_uid:
            names.update(folders_of(file), file.split("/"))
    return names


def _names_of_lacking_slices(series: Series, result: ScanDone, root: Path) -> set[str]:
    """The names of the slices of a chosen series that its scan does not contain."""
    if result.key is not None and len(result.key) == len(series.headers):
        return set()
    kept = set() if result.key is None else set(result.key["file"])
    names = set() if kept else set(series.series_uids)
    for header in series.headers:
        file = slice_name(header, root)
        if file not in kept:
            names |= {file, header.sop_uid}
    return names


def _names_of_slices(series: Series, root: Path) -> set[str]:
    """The names of all slices of a series; a file that holds several slices is one name for all of them."""
    files = {relative_name(source, root) for source in set(values_of(series.headers, "source"))}
    return files | set(values_of(series.headers, "sop_uid"))
