"""The metadata of a stored model: the types and ranges of its entries, and their checksum."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ich_lstm.errors import CheckpointError
from ich_lstm.files.untrusted import check_plain, shown
from ich_lstm.labels import LABELS

FORMAT = 1

CHECKSUM = "checksum"
"""Name of the entry with the checksum of all others. Models of earlier versions do not have it."""

LONGEST_NAME = 200
"""Number of characters that the name of a model may have."""

WIDEST_SLICE_MM = 1000.0

QUANTILES = 101
"""Number of quantiles of each figure in a profile of the training scans."""

COUNTS = ("patients", "scans", "slices")
COUNTS_BY_LABEL = ("positive_slices", "positive_scans")
SHARES = ("known_slice_labels", "known_scan_labels")


class Entry(NamedTuple):
    """What one entry of ``model.json`` may be.

    Args:
        fits: Whether a value is valid. An absent entry counts as None.
        expected: The valid values in words.
    """

    fits: Callable[[Any], bool]
    expected: str


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _are_fits(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(fit, Mapping) and isinstance(fit.get("settings"), Mapping | None) for fit in value
    )


def _is_start(value: Any) -> bool:
    """Whether a value says where weights came from: others' release, an encoder's weights, or an earlier model with its own."""
    if not isinstance(value, Mapping):
        return False
    if "released" in value:
        return _is_text(value["released"])
    if "model" in value:
        before, fits = value.get("starting_weights"), value.get("fits")
        return all(_is_text(value.get(name)) for name in ("model", "hash")) and _or_none(_is_start)(before) and _are_fits(fits)
    encoder = value.get("encoder")
    return isinstance(encoder, Mapping) and "source" in encoder and all(map(_is_text, encoder.values()))


def _is_profile(value: Any) -> bool:
    """Whether this is what `profile_scans` makes: counts, ascending quantiles of figures, and counts of words."""

    def are_quantiles(of: Any) -> bool:
        if not isinstance(of, Mapping) or set(of) != {"scans", "quantiles"} or not _is_count(of["scans"]) or not of["scans"]:
            return False
        values = of["quantiles"]
        is_list = isinstance(values, list) and len(values) == QUANTILES
        return is_list and all(_is_number(number, -1e9, 1e9) for number in values) and values == sorted(values)

    def are_counts(of: Any) -> bool:
        return isinstance(of, Mapping) and all(_is_text(word) and _is_count(count) for word, count in of.items())

    checks: dict[str, Callable[[Any], bool]] = {
        "scans": _is_count,
        "numbers": lambda of: isinstance(of, Mapping) and all(map(are_quantiles, of.values())),
        "words": lambda of: isinstance(of, Mapping) and all(map(are_counts, of.values())),
    }
    return isinstance(value, Mapping) and set(value) == set(checks) and all(checks[name](of) for name, of in value.items())


def _is_training_data(value: Any) -> bool:
    checks: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys(COUNTS, _is_count),
        **dict.fromkeys(COUNTS_BY_LABEL, lambda of: isinstance(of, Mapping) and all(map(_is_count, of.values()))),
        **dict.fromkeys(SHARES, lambda share: _is_number(share, 0, 1)),
        "synthetic": _is_flag,
        "profile": _is_profile,
    }
    return isinstance(value, Mapping) and all(name in checks and checks[name](of) for name, of in value.items())


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


FILE_ENTRIES = {
    "ich_lstm": Entry(_or_none(_is_text), "the version that wrote the model"),
    "hash": Entry(_or_none(lambda text: _is_text(text) and bool(re.fullmatch(r"[0-9a-f]{12}", text))), "12 hexadecimal digits"),
}
"""The entries that describe the file, aside from those that `checked_about` treats by themselves."""

ENTRIES = {
    "settings": Entry(lambda value: isinstance(value, Mapping), "settings by name"),
    "of_training": Entry(
        _or_none(lambda names: isinstance(names, list | tuple) and all(map(_is_text, names))), "names of settings, or null"
    ),
    "preprocessing": Entry(_or_none(lambda value: isinstance(value, Mapping)), "settings by name, or null"),
    "slice_mm": Entry(_or_none(lambda mm: _is_number(mm, 0, WIDEST_SLICE_MM)), f"mm from 0 to {WIDEST_SLICE_MM:g}, or null"),
    "is_synthetic": Entry(_or_none(_is_flag), "true, false or null"),
    "positive_share": Entry(_or_none(lambda share: _is_number(share, 0, 1)), "a share from 0 to 1, or null"),
    "training_data": Entry(_or_none(_is_training_data), "counts of patients, scans and labels, or null"),
    "starting_weights": Entry(_or_none(_is_start), "the origin of the initial weights, or null"),
    "fits": Entry(_or_none(_are_fits), "a list of fits with their settings, or null"),
    "name": Entry(
        _or_none(lambda name: _is_text(name) and len(name) <= LONGEST_NAME),
        f"text of at most {LONGEST_NAME} printable characters, or null",
    ),
}
"""The entries that describe the model."""


def checksum(about: Mapping[str, Any]) -> str:
    """Compute the SHA-256 of metadata, 64 hexadecimal digits.

    It covers every entry, among them the hash of the weights, but not the checksum itself; the order of the keys and the spaces
    between them have no effect.

    Args:
        about: The contents of ``model.json``.
    """
    entries = {name: value for name, value in about.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def checked_about(about: Any, where: str) -> dict[str, Any]:
    """Check the metadata of a model whose author is not trusted.

    Args:
        about: The contents of ``model.json``, or of the same entry in a checkpoint.
        where: The file, for errors.

    Returns:
        The metadata.

    Raises:
        CheckpointError: ``bad_metadata`` if an entry has an invalid type or value, ``newer_format``, ``other_labels``, or
            ``metadata_damaged`` if the checksum differs.
    """
    if not isinstance(about, dict):
        raise _bad(where, "something else than entries by name", "the entries that ich-train writes")
    try:
        check_plain(about)
    except ValueError as error:
        raise _bad(where, str(error), "plain values") from error
    if (version := about.get("format", FORMAT)) != FORMAT:
        is_newer = _is_count(version) and version > FORMAT
        raise CheckpointError(
            "newer_format" if is_newer else "bad_metadata",
            where=where,
            got=f"format {_short(version)}",
            expected=f"{'at most ' if is_newer else ''}{FORMAT}",
            todo="Install a newer ich_lstm." if is_newer else "Use another copy of the model.",
        )
    if (labels := about.get("labels", list(LABELS))) != list(LABELS):
        raise CheckpointError("other_labels", where=where, got=f"labels {_short(labels)}", expected=", ".join(LABELS))
    if "settings" not in about or "preprocessing" not in about:
        raise _bad(where, f"entries {_short(sorted(about))}", "settings and preprocessing among them")
    for name, entry in (FILE_ENTRIES | ENTRIES).items():
        if not entry.fits(about.get(name)):
            raise _bad(where, f"{name} {_short(about.get(name))}", entry.expected)
    if CHECKSUM in about and about[CHECKSUM] != (found := checksum(about)):
        raise CheckpointError(
            "metadata_damaged",
            where=where,
            got=f"entries with the checksum {found}",
            expected=f"{_short(about[CHECKSUM])}, the checksum in the file",
            todo="The file was damaged or edited after it was written. Use another copy of the model.",
        )
    return about


def _bad(where: str, got: str, expected: str) -> CheckpointError:
    return CheckpointError("bad_metadata", where=where, got=got, expected=expected, todo="Use another copy of the model.")


def _short(value: Any) -> str:
    return shown(value if isinstance(value, str) else repr(value))
