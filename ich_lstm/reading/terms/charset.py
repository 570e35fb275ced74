"""Decodes texts by their Specific Character Set (0008,0005), even if it is wrong (PS3.3 C.12.1.1.2; PS3.5, 6.1.2)."""

import re
from functools import lru_cache

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

from ich_lstm.reading.terms.word_table import Vocabulary, normal_form, of_vocabulary

UNDECODED = "\ufffd"
"""Stands in a text for what could not be decoded."""

_ESC = b"\x1b"
_FRAGMENTS = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
_ESCAPES = {**CODES_TO_ENCODINGS, b"\x1b$@": "iso2022_jp"}  # the JIS of 1978, which pydicom leaves out
_WITH_ESCAPES = ("iso2022_jp", "iso2022_jp_2")
"""Python's codecs that want the escape sequence left in."""

_NO_CHARACTER_SET = ("", "ISO_IR 6", "ISO 2022 IR 6")
_MULTI_BYTE = frozenset({"shift_jis", "euc_kr", "iso_ir_58", "gb18030", "gbk", "gb2312"})
_LATIN = frozenset({"latin_1", "iso8859_2", "iso8859_3", "iso8859_4", "iso_ir_148", "iso8859_15"})

_SIGNS = frozenset("°µ²³±–—’«»®ªº")
"""What Western texts have beside letters."""

_LONGEST_RUN = 3
"""Letters with accents in a row, in a text of Latin letters."""

_FIRST_FAR_LETTER = "\u0800"
"""UTF-8 needs three bytes from here on; two that follow each other by chance in another encoding are no sign of UTF-8."""

_GUESSES = ("gb18030", "cp932", "euc_kr", "big5", "cp1251", "koi8_r", "cp1253", "cp1250", "iso8859_5")
"""Encodings of hospitals that write no character set; one is believed if a word of the vocabulary comes out."""


@lru_cache(maxsize=4096)
def decode_text(value: bytes, character_set: str) -> str:
    """Decode a text that is not plain ASCII.

    A character set that is missing, unknown or contradicted by the bytes is not believed: UTF-8 is, where it fits; then what
    fits Western letters; then an encoding in which a word of the vocabulary comes out.

    Args:
        value: The bytes of the element.
        character_set: Specific Character Set (0008,0005), its values parted by backslashes.

    Returns:
        The text; :data:`UNDECODED` stands in it for bytes of which nothing is known.

    Example:
        >>> decode_text("Schädel".encode("latin-1"), "ISO_IR 100"), decode_text(b"\\x1b$BF,It\\x1b(B 5mm", "\\\\ISO 2022 IR 87")
        ('Schädel', '頭部 5mm')
    """
    declared = _declared(character_set)
    text = _by_escapes(value, declared) if _ESC in value else _without_escapes(value, declared)
    return text.strip(" \0")


def _declared(character_set: str) -> str | None:
    """Python's name of the first character set, which holds where no escape sequence stands; None if missing or unknown."""
    name = character_set.partition("\\")[0].strip(" \0").upper()
    if name in _NO_CHARACTER_SET:
        return None
    spelt = re.sub(r"^ISO[ _-]?IR[ _-]?", "ISO_IR ", re.sub(r"^ISO[ _-]2022[ _-]IR[ _-]?", "ISO 2022 IR ", name))
    found = python_encoding.get(spelt)
    return None if found is None else found.lower()


def _by_escapes(value: bytes, declared: str | None) -> str:
    """Any escape sequence of the Standard is followed, whether its character set is named or not."""
    texts = []
    for fragment in _FRAGMENTS.findall(value):
        if not fragment.startswith(_ESC):
            texts.append(fragment.decode() if fragment.isascii() else _without_escapes(fragment, declared))
            continue
        length = 4 if fragment[1:3] in (b"$(", b"$)") else 3
        encoding = _ESCAPES.get(fragment[:length])
        if encoding is None:
            texts.append(UNDECODED + _without_escapes(fragment[1:], declared))
        elif encoding in _WITH_ESCAPES:
            texts.append(fragment.decode(encoding, errors="replace"))
        else:
            texts.append(fragment[length:].decode(encoding, errors="replace"))
    return "".join(texts)


def _without_escapes(value: bytes, declared: str | None) -> str:
    utf_8 = _utf_8(value)
    if declared in _MULTI_BYTE:
        if utf_8 is not None and all(letter.isascii() or letter >= _FIRST_FAR_LETTER for letter in utf_8):
            return utf_8
        text = _strictly(value, declared)
        if text is not None:
            return text
    if utf_8 is not None:
        return utf_8
    if declared is not None and declared not in _MULTI_BYTE:
        text = _strictly(value, declared)
        if text is not None and (declared not in _LATIN or _is_latin(text)):
            return text
    western = _strictly(value, "cp1252")
    if western is not None and _is_latin(western):
        return western
    for encoding in _GUESSES:
        text = _strictly(value, encoding)
        if text is not None and _foreign_words().search(normal_form(text)):
            return text
    return value.decode("ascii", errors="replace")


def _utf_8(value: bytes) -> str | None:
    """Also where a text was cut off within its last letter, as some software does at 64 bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        start = value[: error.start]
        if error.reason == "unexpected end of data" and not start.isascii():
            return start.decode() + UNDECODED
        return None


def _strictly(value: bytes, encoding: str) -> str | None:
    try:
        return value.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _is_latin(text: str) -> bool:
    """Whether a text is one of Latin letters, and not bytes of another encoding taken for such."""
    foreign = re.findall(r"[^\x00-\x7f]+", text)
    return all(len(run) <= _LONGEST_RUN and all(sign.isalpha() or sign in _SIGNS for sign in run) for run in foreign)


@of_vocabulary
def _foreign_words(words: Vocabulary) -> re.Pattern[str]:
    """All words of the vocabulary in other letters than Latin ones."""
    return re.compile(words.foreign())
