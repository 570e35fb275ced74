"""Texts of a header by their character set, right, wrong or missing, before any rule looks at them."""

from pathlib import Path
from typing import Any

import pytest
from dicom_files import make_series, make_slice

from ich_lstm.errors import StudyError
from ich_lstm.reading import choose_series, index_source, load_scan
from ich_lstm.reading.terms.charset import UNDECODED, decode_text

DECLARED = {
    "ISO_IR 100": ("Schädel ohne KM", "latin-1"),
    "ISO_IR 101": ("Głowa bez kontrastu", "iso8859-2"),
    "ISO_IR 109": ("Kranjo ŝ", "iso8859-3"),
    "ISO_IR 110": ("Galva ā", "iso8859-4"),
    "ISO_IR 126": ("Εγκέφαλος", "iso8859-7"),
    "ISO_IR 127": ("رأس بدون صبغة", "iso8859-6"),
    "ISO_IR 138": ("ראש", "iso8859-8"),
    "ISO_IR 144": ("Голова нативно", "iso8859-5"),
    "ISO_IR 148": ("Beyin kontrastsız", "iso8859-9"),
    "ISO_IR 166": ("สมอง", "tis-620"),
    "ISO_IR 13": ("ｱﾀﾏ", "shift_jis"),
    "ISO_IR 192": ("头部 Schädel голова", "utf-8"),
    "GB18030": ("头部平扫", "gb18030"),
    "GBK": ("颅脑增强", "gbk"),
}
ESCAPED = {
    "japanese": ("\\ISO 2022 IR 87", b"\x1b$BF,It\x1b(B 5mm", "頭部 5mm"),
    "japanese-1978": ("\\ISO 2022 IR 87", b"\x1b$@F,It\x1b(B", "頭部"),
    "japanese-cut-off-return": ("\\ISO 2022 IR 87", b"5mm \x1b$BF,It", "5mm 頭部"),
    "katakana": ("ISO 2022 IR 13\\ISO 2022 IR 87", b"\x1b(J\xb1\xc0\xcf\x1b$BF,It\x1b(J", "ｱﾀﾏ頭部"),
    "korean": ("\\ISO 2022 IR 149", b"\x1b$)C" + "두부".encode("euc_kr") + b" CT", "두부 CT"),
    "chinese": ("\\ISO 2022 IR 58", b"\x1b$)A" + "头部".encode("gb2312"), "头部"),
    "russian": ("ISO 2022 IR 6\\ISO 2022 IR 144", b"\x1b-L" + "голова".encode("iso8859-5"), "голова"),
    "not-declared": ("", b"\x1b$BF,It\x1b(B", "頭部"),
    "declared-otherwise": ("ISO_IR 100", b"\x1b$BF,It\x1b(B", "頭部"),
}
WRONG = {
    "utf-8-under-none": ("", "头部平扫".encode(), "头部平扫"),
    "utf-8-under-latin": ("ISO_IR 100", "Schädel".encode(), "Schädel"),
    "utf-8-under-cyrillic": ("ISO_IR 144", "Голова".encode(), "Голова"),
    "utf-8-under-gb": ("GB18030", "头部平扫".encode(), "头部平扫"),
    "gb-that-looks-like-utf-8": ("GB18030", "联".encode("gb18030"), "联"),
    "cp1252-under-none": ("", "Schädel – nativ".encode("cp1252"), "Schädel – nativ"),
    "latin-under-utf-8": ("ISO_IR 192", "Crâne".encode("latin-1"), "Crâne"),
    "unknown-name": ("ISO_IR 999", "Crâne".encode("latin-1"), "Crâne"),
    "misspelt-name": ("ISO-IR 144", "Голова".encode("iso8859-5"), "Голова"),
    "gb-under-none": ("", "头部增强".encode("gb18030"), "头部增强"),
    "gb-under-latin": ("ISO_IR 100", "头部增强".encode("gb18030"), "头部增强"),
    "shift-jis-under-none": ("", "頭部造影".encode("cp932"), "頭部造影"),
    "euc-kr-under-none": ("", "두부 조영증강".encode("euc_kr"), "두부 조영증강"),
    "cp1251-under-none": ("", "голова с контрастом".encode("cp1251"), "голова с контрастом"),
}
UNDECODABLE = {
    "bytes": ("", bytes(range(0x80, 0xA0))),
    "utf-8-cut": ("ISO_IR 192", "头部".encode()[:-1]),
    "unknown-escape": ("", b"\x1b%zHead"),
    "damaged-japanese": ("\\ISO 2022 IR 87", b"\x1b$BF,\xff\xfe"),
}


@pytest.mark.parametrize("character_set", DECLARED)
def test_as_declared(character_set: str) -> None:
    text, encoding = DECLARED[character_set]
    assert decode_text(text.encode(encoding), character_set) == text


@pytest.mark.parametrize("case", ESCAPED)
def test_escape_sequences(case: str) -> None:
    character_set, data, text = ESCAPED[case]
    assert decode_text(data, character_set) == text


@pytest.mark.parametrize("case", WRONG)
def test_declared_wrongly_or_not_at_all(case: str) -> None:
    character_set, data, text = WRONG[case]
    assert decode_text(data, character_set) == text


@pytest.mark.parametrize("case", UNDECODABLE)
def test_what_cannot_be_decoded_is_marked(case: str) -> None:
    character_set, data = UNDECODABLE[case]
    text = decode_text(data, character_set)
    assert UNDECODED in text
    assert "\x1b" not in text


def write(path: Path, tag: str, data: bytes, character_set: str, **elements: Any) -> None:
    """A series whose description is these bytes."""
    mark = "Q" * (len(data) + len(data) % 2)
    own: dict[str, Any] = {tag: mark}
    for file in make_series(
        path, **(own | elements | ({"SpecificCharacterSet": character_set.split("\\")} if character_set else {}))
    ):
        content = file.read_bytes()
        assert content.count(mark.encode()) == 1
        file.write_bytes(content.replace(mark.encode(), data.ljust(len(mark))))


ENHANCED = {
    "japanese": ("\\ISO 2022 IR 87", b"\x1b$BB$1F\x1b(B"),  # 造影
    "japanese-phase": ("\\ISO 2022 IR 87", "動脈相".encode("iso2022_jp")),
    "chinese": ("GB18030", "增强".encode("gb18030")),
    "chinese-undeclared": ("", "头部增强".encode("gb18030")),
    "russian": ("ISO_IR 144", "с контрастом".encode("iso8859-5")),
    "korean": ("\\ISO 2022 IR 149", b"\x1b$)C" + "조영증강".encode("euc_kr")),
    "utf-8": ("ISO_IR 192", "头部CTA增强".encode()),
    "german": ("ISO_IR 100", "Spätphase".encode("latin-1")),
}


@pytest.mark.parametrize("case", ENHANCED)
def test_contrast_is_read_in_any_character_set(case: str, tmp_path: Path) -> None:
    character_set, data = ENHANCED[case]
    write(tmp_path, "SeriesDescription", data, character_set)
    with pytest.raises(StudyError) as error:
        choose_series(index_source(tmp_path).studies()[0])
    assert error.value.code == "contrast"


@pytest.mark.parametrize("case", ["japanese", "chinese", "russian"])
def test_an_agent_s_name_is_read_in_any_character_set(case: str, tmp_path: Path) -> None:
    character_set, data = ENHANCED[case]
    write(tmp_path, "ContrastBolusAgent", data, character_set)
    with pytest.raises(StudyError) as error:
        choose_series(index_source(tmp_path).studies()[0])
    assert error.value.code == "contrast"


@pytest.mark.parametrize("data", ["なし".encode("iso2022_jp"), b"NONE"])
def test_an_agent_that_is_none_in_another_character_set(data: bytes, tmp_path: Path) -> None:
    write(tmp_path, "ContrastBolusAgent", data, "\\ISO 2022 IR 87")
    assert "contrast" not in {flag.code for flag in load_scan(choose_series(index_source(tmp_path).studies()[0]).series).flags}


@pytest.mark.parametrize("tag", ["SeriesDescription", "StudyDescription", "BodyPartExamined"])
def test_undecodable_words_are_flagged_and_the_scan_is_read(tag: str, tmp_path: Path) -> None:
    write(tmp_path, tag, b"\x81\x8d\x8f\x90\x9d\xff\xfe", "")
    scan = load_scan(choose_series(index_source(tmp_path).studies()[0]).series)
    assert "character_set" in {flag.code for flag in scan.flags}


def test_an_undecodable_agent_counts_as_one(tmp_path: Path) -> None:
    write(tmp_path, "ContrastBolusAgent", b"\x81\x8d\x8f\x90\x9d\xff\xfe", "")
    with pytest.raises(StudyError) as error:
        choose_series(index_source(tmp_path).studies()[0])
    assert error.value.code == "contrast"


@pytest.mark.parametrize("character_set", ["ISO_IR 100", "", "ISO_IR 999", "ISO_IR 192\\ISO 2022 IR 87"])
def test_plain_ascii_is_read_under_any_name(character_set: str, tmp_path: Path) -> None:
    make_slice(tmp_path / "a.dcm", SeriesDescription="HEAD PLAIN", SpecificCharacterSet=character_set.split("\\"))
    (header,) = index_source(tmp_path).headers
    assert header.series_description == "HEAD PLAIN"


def test_no_date_of_birth_is_kept(tmp_path: Path) -> None:
    make_series(tmp_path / "in", PatientBirthDate="20150301", StudyDate="20200301")
    index = index_source(tmp_path / "in")
    assert index.headers[0].age_years == 5
    index.write(tmp_path / "private")
    assert not any(b"20150301" in file.read_bytes() for file in (tmp_path / "private").iterdir())
    assert "2015" not in repr(index.headers[0])
