"""All reasons to skip or refuse a file: stable code, action, and text for a person."""

from typing import Literal, NamedTuple

Action = Literal["used", "skipped", "refused"]


class Reason(NamedTuple):
    """The meaning of a reason code.

    Args:
        action: ``skipped`` if the file or series is of a kind that this library does not read; ``refused`` if it should have
            been usable and is not. After a refusal, ich-prepare exits with 3; ich-predict exits with 3 if a study then has no
            result, or if the file belongs to no study.
        phrase: The reason in a few words, for a summary.
    """

    action: Action
    phrase: str


REASONS: dict[str, Reason] = {
    # a single file, whose series is not yet known
    "empty_file": Reason("skipped", "empty file"),
    "not_dicom": Reason("skipped", "not DICOM"),
    "dicomdir": Reason("skipped", "DICOMDIR"),
    "truncated_header": Reason("skipped", "truncated header"),
    "nested_too_deep": Reason("skipped", "sequences nested too deep"),
    "no_pixels": Reason("skipped", "no image"),
    "not_ct": Reason("skipped", "not CT"),
    "link": Reason("skipped", "symbolic link"),
    "special_file": Reason("skipped", "not a regular file"),
    "unreadable": Reason("refused", "unreadable"),
    "multi_frame": Reason("refused", "multi-frame"),
    "no_series_uid": Reason("refused", "no series UID"),
    "deflated_bomb": Reason("refused", "inflates beyond bounds"),
    # archives
    "bad_archive": Reason("refused", "damaged archive"),
    "archive_traversal": Reason("refused", "archive with paths outside itself"),
    "archive_bomb": Reason("refused", "archive that inflates beyond bounds"),
    "nested_archive": Reason("refused", "archives nested too deep"),
    "encrypted": Reason("refused", "encrypted"),
    # the pixels of one file
    "bad_matrix": Reason("refused", "implausible matrix size"),
    "truncated_pixels": Reason("refused", "truncated pixel data"),
    "pixel_format": Reason("refused", "pixel format that holds no HU"),
    "rescale_missing": Reason("refused", "rescale missing"),
    "bad_rescale": Reason("refused", "impossible rescale"),
    "unknown_transfer_syntax": Reason("refused", "unknown transfer syntax"),
    "codec_missing": Reason("refused", "codec not installed"),
    "decode_failed": Reason("refused", "pixels cannot be decoded"),
    "codec_crashed": Reason("refused", "decoder crashed"),
    "codec_timeout": Reason("refused", "decoder took too long"),
    # a NIfTI file
    "not_nifti": Reason("refused", "unreadable NIfTI"),
    "nifti_in_archive": Reason("refused", "NIfTI in an archive"),
    "four_dimensions": Reason("refused", "not three dimensions"),
    "not_finite": Reason("refused", "NaN or infinite values"),
    "not_hu": Reason("refused", "values that are not HU"),
    "nifti_bomb": Reason("refused", "NIfTI beyond bounds"),
    # slices that are excluded from a scan
    "duplicate_file": Reason("skipped", "the same file twice"),
    "repeated_position": Reason("skipped", "earlier of two slices at one position"),
    "other_orientation": Reason("skipped", "other orientation than its series"),
    "neck": Reason("skipped", "below the head"),
    # a series that cannot become a scan
    "mixed_matrix": Reason("refused", "mixed matrix sizes"),
    "mixed_spacing": Reason("refused", "mixed pixel spacing"),
    "no_spacing": Reason("refused", "no pixel spacing"),
    "bad_position": Reason("refused", "malformed position"),
    "invalid_identity": Reason("refused", "a name or an identifier that DICOM does not allow"),
    "bad_orientation": Reason("refused", "malformed orientation"),
    "no_position": Reason("refused", "no position"),
    "equal_positions": Reason("refused", "all positions equal"),
    "conflicting_uids": Reason("refused", "different slices under one UID"),
    "mixed_patients": Reason("refused", "slices of several patients"),
    "mixed_examinations": Reason("refused", "slices of several examinations"),
    "no_usable_slice": Reason("refused", "no usable slice"),
    # a series that is not selected
    "localizer": Reason("skipped", "localizer"),
    "secondary_capture": Reason("skipped", "secondary capture"),
    "color": Reason("skipped", "color image"),
    "derived_map": Reason("skipped", "derived map"),
    "not_axial": Reason("skipped", "not axial"),
    "few_slices": Reason("skipped", "fewer than 4 slices"),
    "perfusion": Reason("skipped", "perfusion or other time series"),
    "not_head": Reason("skipped", "not the head"),
    "bone_kernel": Reason("skipped", "bone kernel"),
    "partial_coverage": Reason("skipped", "part of the head only"),
    "contrast": Reason("refused", "contrast given"),
    "not_chosen": Reason("skipped", "another series of the study is read"),
    "no_label": Reason("skipped", "no label"),
    # an error that nobody foresaw; the same command tries again
    "unexpected_error": Reason("refused", "unexpected error"),
    "out_of_memory": Reason("refused", "out of memory"),
    # a study that occurs twice
    "repeated_study": Reason("skipped", "the same files below two paths"),
    "other_copy": Reason("refused", "another copy of a study that is read"),
    "superseded": Reason("skipped", "replaced by a later copy of its study"),
}
"""Codes do not change between releases: stored ledgers and users' scripts depend on them."""


def action_of(code: str) -> Action:
    """The action for a reason code; an unknown code counts as refused."""
    return REASONS[code].action if code in REASONS else "refused"


def phrase_of(code: str) -> str:
    """The text of a reason code in a few words."""
    return REASONS[code].phrase if code in REASONS else code.replace("_", " ")
