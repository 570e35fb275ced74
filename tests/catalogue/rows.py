"""Rows of the catalogue: each kind of input, and how it is handled."""

from typing import NamedTuple


class Row(NamedTuple):
    """One kind of bad input.

    Args:
        title: Kind of input.
        action: How it is handled, in words.
    """

    title: str
    action: str


ROWS: dict[str, Row] = {
    "1": Row("no preamble or DICM mark", "read"),
    "2": Row("text, `.DS_Store`, empty file, random bytes", "skipped"),
    "3": Row("DICOMDIR, DIRFILE", "skipped; the paths inside are not followed"),
    "4": Row("truncated pixel data", "series refused; in training only the slice is excluded"),
    "5": Row("truncated header", "skipped"),
    "6": Row("bytes after the last element", "repaired"),
    "7": Row("small file that claims 4 GB of Pixel Data", "series refused"),
    "8": Row("file that claims 65535 x 65535 pixels", "series refused"),
    "9": Row("Rows or Columns 0", "series refused"),
    "10": Row("no pixels (SR, PR, RTSTRUCT, KO)", "skipped"),
    "11": Row("deflated file that inflates beyond the limit", "refused"),
    "12": Row("endlessly nested sequences", "skipped"),
    "13": Row("unknown transfer syntax", "series refused, with the UID"),
    "14": Row("compressed transfer syntax, but raw bytes", "series refused"),
    "15": Row("corrupt compressed stream", "series refused if the damage is detectable"),
    "16": Row("truncated compressed stream", "series refused"),
    "17": Row("a codec aborts or hangs the process", "series refused; the run goes on"),
    "18": Row("codec not installed", "series refused; the reason names the extra that installs it"),
    "19": Row("RLE, JPEG-LS, JPEG 2000, JPEG lossless, deflated", "read, equal to the raw file"),
    "20": Row("lossy compressed", "read and flagged"),
    "21": Row("implicit and explicit VR mixed, big endian", "read"),
    "22": Row("missing Rescale Slope or Intercept", "series refused, unless the stored values are HU"),
    "22b": Row("wrong rescale: values that cannot be HU", "series refused; the reason states what was found"),
    "23": Row("Rescale Slope 0, NaN or huge", "series refused"),
    "24": Row("fractional slope", "read"),
    "25": Row("rescale differs from slice to slice", "read, per slice"),
    "26": Row("signed values flagged unsigned", "repaired"),
    "27": Row("RSNA's 12-bit wrap, from 3072 on", "repaired"),
    "28": Row("12-bit signed values without sign extension", "repaired"),
    "29": Row("padding below air or outside Bits Stored, or Pixel Padding Value", "set to air"),
    "30": Row("MONOCHROME1", "read, HU kept"),
    "31": Row("RGB, secondary capture, screenshots", "skipped"),
    "32": Row("palette, 1-bit, 32-bit or float pixels", "series refused"),
    "33": Row("NaN or Inf in a NIfTI", "refused"),
    "34": Row("values beyond int16 after rescale", "clipped"),
    "35": Row("constant slice", "read and flagged"),
    "36": Row("no Image Position (Patient)", "ordered by Slice Location, then Instance Number; flagged"),
    "36b": Row(
        "positions rounded to whole or tenths of a mm",
        "repositioned by Slice Location or Instance Number; none counts as a repeat",
    ),
    "37": Row("no Image Orientation (Patient)", "assumed to be axial; flagged"),
    "38": Row("all positions equal", "series refused"),
    "39": Row("missing slice", "read; gap flagged"),
    "40": Row("two slices at one position", "the later one is kept; two kernels are separated"),
    "41": Row("the same file twice", "read once; other pixels under one SOP Instance UID are refused"),
    "40b": Row(
        "several shifted acquisitions in one series", "separated, never interleaved; the latest complete one is read and flagged"
    ),
    "42": Row("Instance Number reversed or shuffled", "ordered by position"),
    "43": Row("no Instance Number", "read"),
    "44": Row("position that is NaN or has two values", "series refused"),
    "45": Row("gantry tilt", "read; angle flagged"),
    "45b": Row("tilt stated only by Gantry/Detector Tilt", "read; angle flagged"),
    "46": Row("unevenly spaced slices", "read and flagged"),
    "47": Row("coronal, sagittal or steep reformat", "skipped; axial reformats up to 40 degrees are read"),
    "48": Row("a scout inside the series", "the scout is skipped"),
    "48b": Row("a screenshot, a dose sheet or another page among the slices of a series", "the page is skipped"),
    "49": Row("localizer, or fewer than 4 slices", "skipped"),
    "50": Row("two series in one folder", "separated"),
    "50b": Row(
        "one acquisition in several series",
        "joined if they abut or fill each other's gaps; never if they show the same tissue twice",
    ),
    "51": Row("mixed matrix sizes", "series refused"),
    "52": Row("mixed pixel spacing", "series refused"),
    "53": Row("pixels that are not square, or without spacing", "resampled; without spacing refused"),
    "54": Row("256, 768 or 1024 matrix", "read"),
    "55": Row("perfusion and other time series", "skipped"),
    "56": Row("enhanced multi-frame CT", "read"),
    "57": Row("reports, maps, extreme energies", "skipped; mixed images and those of 60 to 80 keV are ranked low"),
    "57b": Row(
        "maps by Rescale Type, Image Type or name; results of other software",
        "skipped; a Rescale Type of US alone is read and flagged",
    ),
    "58": Row("bone kernel beside a soft one", "the soft one is read"),
    "59": Row("contrast given", "refused unless allowed; in training flagged"),
    "59b": Row("contrast stated by its route, volume, time or dose, or in other words", "refused unless allowed"),
    "59c": Row("contrast denied, or with a volume of 0", "read"),
    "60": Row("thin slices", "averaged to slabs of about 5 mm"),
    "60b": Row("slices of 10 mm", "read and flagged"),
    "61": Row("MR, PT, CR and others", "skipped"),
    "62": Row(
        "not a head, or a part of one",
        "not used, by its name or pixels; slices below the head are cropped; half a head is flagged",
    ),
    "63": Row("age under 18 by age or date of birth, kVp outside 70 to 150", "read and flagged"),
    "64": Row("feet first, prone, mirrored", "turned to the display convention"),
    "65": Row("burned-in annotation", "read and flagged"),
    "66": Row("unknown character set, raw bytes in a name", "read; texts are decoded, or flagged"),
    "67": Row("archive with paths outside itself", "refused"),
    "68": Row("archive that inflates beyond the limit", "refused"),
    "69": Row("link that loops, is broken, or leads elsewhere", "skipped"),
    "70": Row("unreadable or vanished file, I/O error", "series refused"),
    "71": Row("names with newlines or beyond ASCII", "read"),
    "81": Row(
        "patients who share a Study or Series Instance UID, or an ID", "separated; refused where it is not clear whose a slice is"
    ),
    "82": Row("examinations of one patient under one UID", "separated; refused within one series"),
    "80": Row("a scan with no usable slice", "refused"),
    "a": Row("missing attribute that is not needed", "read"),
    "b": Row("missing attribute that is needed", "refused or skipped"),
}
