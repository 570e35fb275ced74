"""Selects the series to prepare: those that the labels name, the one requested by the user, or the best one by the rules."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ich_lstm.data.prepared.file_names import SLICE_MARK, folders_of, relative_name
from ich_lstm.data.tables.labelled import LabelTable
from ich_lstm.data.tables.paths import fold, tails, tidy
from ich_lstm.data.tables.spreadsheet import find_lost_digits, show_lost_digits, stop_at_damage
from ich_lstm.errors import IchLstmError, TableError
from ich_lstm.formatting import first_of
from ich_lstm.reading import Candidate, Ledger, Series, Study, rank_series
from ich_lstm.reading.header.frames import FRAME_MARK
from ich_lstm.reading.ledger.header_table import values_of
from ich_lstm.reading.series.nifti import NiftiSeries
from ich_lstm.reading.study.choose import choose_among


class Choice(NamedTuple):
    """A series to prepare.

    Args:
        series: The series to prepare.
        reason: Why this series was chosen, as text for people.
        others: The other series of the study and why they were not chosen, as text for people.
    """

    series: Series
    reason: str
    others: str = ""


class SeriesChooser:
    """Chooses the series to prepare, and records in the ledger why the others are not.

    Args:
        labels: Which slices and scans are labelled; studies without any label are excluded. None: every study.
        choices: Series that override the automatic choice, in the format of `prepare`.
        root: The folder to which paths in the labels are relative.
        ledger: The ledger of the source.
    """

    def __init__(self, labels: LabelTable | None, choices: Mapping[str, str] | None, root: Path, ledger: Ledger) -> None:
        self._labels = None if labels is None else _LabelNames(labels, root)
        self._choices = choices or {}
        self._root = root
        self._ledger = ledger
        self._studies: Counter[str] = Counter()
        self._names = {kind: (set[str](), set[str]()) for kind in ("accession_number", "folder")}
        self._ungranted: dict[str, str] = {}
        self.unlabelled: list[Study] = []
        """Studies that no label references."""
        self.unusable: list[Study] = []
        """Studies without a usable series, each with its reason in the ledger."""

    def choose(self, study: Study) -> list[Choice]:
        """Choose the series of a study to prepare; a NIfTI file counts as a study."""
        wish = self._wish(study)
        labels = self._labels
        named = [] if labels is None else self._named(study, labels)
        is_named = labels is not None and labels.name_study(study, self._root)
        if labels is not None:
            self._remember(study, bool(named) or is_named)
        if labels is not None and not named and not is_named:
            self.unlabelled.append(study)
            for series in study.series:
                self._ledger.mark(series.headers, "no_label", "no label names it")
            return []
        # A label of the whole study can refer to only one scan, whichever series its slices are labelled in.
        is_one = is_named and len(named) > 1 and labels is not None and not any(map(labels.name_uid, named))
        if named and wish is None and not is_one:
            passed_over = [series for series in study.series if series not in named]
            for series in passed_over:
                self._ledger.mark(series.headers, "not_chosen", "the labels name another series of the study")
            for series in named:
                self._ledger.mark_used(series.headers)
            others = _list([(series, "not named") for series in passed_over])
            return [Choice(series, "the labels name it", others) for series in named]
        ranked = _rank(study)
        try:
            if wish is not None:
                uid: str | None = self._uid_of(wish, ranked)
            else:
                uid = next((one.series.series_uid for one in ranked if is_one and one.eligible and one.series in named), None)
            chosen = choose_among(study, ranked, uid, ledger=self._ledger)
            # A NIfTI file has no DICOM slices, which count as used by default.
            self._ledger.mark_used(chosen.series.headers)
        except IchLstmError as error:
            if wish is not None:
                self._ungranted[wish] = error.detail
            self.unusable.append(study)
            return []  # the ledger gives the reason for every series
        reason = chosen.reason
        if wish is not None:
            reason = f"selected by the table of choices ({reason})"
        elif is_one and chosen.series in named:
            reason = f"the best of {len(named)} that the labels name ({reason})"
        return [Choice(chosen.series, reason, _list([(one.series, one.reason) for one in ranked if one is not chosen]))]

    def check_labels(self) -> None:
        """Check that no label would name a study, had a spreadsheet not dropped digits; to be called after all studies.

        Raises:
            TableError: If one would, with the code ``spreadsheet_damage``.
        """
        if self._labels is None:
            return
        table = self._labels.table
        for kind, (with_label, without) in self._names.items():
            rows = table.rows[(table.rows["kind"] == kind) & ~table.rows["name"].isin(with_label)]
            damaged = find_lost_digits(rows["name"], without)
            if damaged.any():
                example = show_lost_digits(rows["name"][damaged].iloc[0], without)
                stop_at_damage(table.source, rows["line"][damaged], kind, example)

    def _remember(self, study: Study, is_labelled: bool) -> None:
        """Keep the identifiers by which labels may reference a study."""
        accession_numbers = {series.headers[0].accession_number for series in study.series}
        folders = {folder for name in _first_files(study, self._root) for folder in folders_of(name)}
        for kind, names in (("accession_number", accession_numbers), ("folder", folders)):
            self._names[kind][0 if is_labelled else 1].update(name for name in names if name.isdecimal())

    @staticmethod
    def _named(study: Study, labels: "_LabelNames") -> list[Series]:
        """The series that labels name; the best of several acquisitions under one series UID, unless labels name its slices."""
        named = [series for series in study.series if labels.name_series(series)]
        for uid in {series.series_uid for series in named if series.acquisition}:
            several = [series for series in named if series.series_uid == uid]
            meant = [series for series in several if labels.name_slices(series)]
            meant = meant or [one.series for one in _rank(study) if any(one.series is series for series in several)][:1]
            named = [series for series in named if series.series_uid != uid or any(series is one for one in meant)]
        return named

    def check_choices(self) -> None:
        """Check that every choice was followed; to be called after all studies.

        Raises:
            TableError: If a choice fits no study or no usable series, with the code ``choice_without_series`` and the first ten
                choices.
        """
        wrong = dict(self._ungranted)
        for name in self._choices:
            if self._studies[name] != 1:
                wrong[name] = f"{self._studies[name] or 'no'} studies of this name"
        if wrong:
            shown = first_of((f"{name!r}: {what.rstrip('.')}" for name, what in wrong.items()), separator="; ")
            raise TableError(
                "choice_without_series",
                where="choices of series",
                got=f"{shown} ({len(wrong)} choices)",
                expected="the UID, accession number or folder of one study, and the UID or description of a series of it",
                todo="Correct the choices, and run again.",
            )

    def _wish(self, study: Study) -> str | None:
        """The name by which the choices reference a study; None if they do not."""
        if not self._choices:
            return None
        names = {study.study_uid} | {series.headers[0].accession_number for series in study.series}
        names = (names | _folder_names(study, self._root)) & self._choices.keys()
        self._studies.update(names)
        if len({self._choices[name] for name in names}) > 1:
            self._ungranted |= dict.fromkeys(names, "another row of the choices names the same study")
        return min(names, default=None)

    def _uid_of(self, wish: str, ranked: list[Candidate]) -> str:
        """The UID of the series that a choice requests; the best one if several have the same description."""
        wanted = self._choices[wish]
        for candidate in ranked:
            if wanted in candidate.series.series_uids:
                return wanted
        for candidate in ranked:
            if candidate.series.headers[0].series_description.casefold() == wanted.strip().casefold():
                return candidate.series.series_uid
        raise TableError("choice_without_series", where=wish, got=f"no series {wanted!r} among {_list_all(ranked)}")


class _LabelNames:
    """The names in a label table, to look up whether labels reference a series or a study."""

    def __init__(self, table: LabelTable, root: Path) -> None:
        self._root = root
        self.table = table
        rows = dict(tuple(table.rows.groupby("kind")["name"]))
        names: dict[str, set[str]] = {str(kind): set(names) for kind, names in rows.items()}
        self._series = names.get("series_uid", set())
        self._slices = names.get("sop_uid", set())
        # The paths in a table may be relative to the folder above the root.
        above = f"{root.resolve().name}/"
        files = names.get("file", set())
        files = files | {file.removeprefix(above) for file in files}
        self._files = files | {file.rpartition(SLICE_MARK)[0] for file in files if SLICE_MARK in file}
        self._folded_files = _folds(self._files, above)
        self._studies = names.get("study_uid", set())
        self._accession_numbers = names.get("accession_number", set())
        folders = names.get("folder", set())
        self._folders = _folds(folders, above)
        self._folder_names = names.get("folder_name", set())

    def name_uid(self, series: Series) -> bool:
        return not self._series.isdisjoint(series.series_uids)

    def name_series(self, series: Series) -> bool:
        """Whether labels name a series or any of its slices."""
        return self.name_uid(series) or self.name_slices(series)

    def name_slices(self, series: Series) -> bool:
        """Whether labels name any slice of a series."""
        if self._slices:
            uids = values_of(series.headers, "sop_uid")
            # The UID of a multi-frame file names all of its frames.
            if not self._slices.isdisjoint(uids) or not self._slices.isdisjoint({uid.partition(FRAME_MARK)[0] for uid in uids}):
                return True
        sources = values_of(series.headers, "source") if self._files else []
        paths = (relative_name(source, self._root) for source in sources)
        return any(path in self._files or fold(path) in self._folded_files for path in paths)

    def name_study(self, study: Study, root: Path) -> bool:
        if study.study_uid in self._studies:
            return True
        if self._accession_numbers and any(
            series.headers[0].accession_number in self._accession_numbers for series in study.series
        ):
            return True
        if self._folder_names and self._folder_names & _folder_names(study, root):
            return True
        return bool(self._folders) and any(
            fold(folder) in self._folders for name in _first_files(study, root) for folder in folders_of(name)
        )


def _folds(paths: set[str], above: str) -> set[str]:
    """Normalize paths, and add what they mean if they are relative to the folder above the root.

    The result may match too much: which of several tails of a path is meant shows only where all files are known.
    """
    tidied = {tidy(path) for path in paths}
    tidied |= {tail for path in tidied for tail in tails(path)}
    return {path.removeprefix(above).casefold() for path in tidied} | {path.casefold() for path in tidied}


def study_names(study: Study, root: Path) -> set[str]:
    """All names by which a label may reference a study."""
    names = {study.study_uid, *(series.headers[0].accession_number for series in study.series)}
    return names.union(_folder_names(study, root), *map(folders_of, _first_files(study, root)))


def _rank(study: Study) -> list[Candidate]:
    """The series of a study in the order of preference; contrast is flagged in training, not refused."""
    (first, *others) = study.series
    if isinstance(first, NiftiSeries) and not others:
        return [Candidate(first, True, 1, "", f"a NIfTI file of {len(first)} slices")]
    return rank_series(study, allow_contrast=True)


def _first_files(study: Study, root: Path) -> list[str]:
    return [relative_name(series.headers[0].source, root) for series in study.series]


def _folder_names(study: Study, root: Path) -> set[str]:
    """Every component of the paths above a study's files."""
    return {part for name in _first_files(study, root) for part in name.split("/")[:-1]}


def _list_all(ranked: list[Candidate]) -> str:
    return _list([(candidate.series, candidate.reason) for candidate in ranked])


def _list(series: list[tuple[Series, str]]) -> str:
    return "; ".join(f"{one.series_uid} {one.headers[0].series_description!r}: {reason}" for one, reason in series)
