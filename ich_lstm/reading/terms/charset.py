"""Decodes texts by their Specific Character Set (0008,0005), even if it is wrong (PS3.3 C.12.1.1.2; PS3.5, 6.1.2)."""

import re
from functools import lru_cache

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

from ich_lstm.reading.terms.word_table import Vocabulary, normal_form, of_vocabulary

UNDECODED = "\ufffd"
"""Replaces the parts of a text that could not be decoded."""

_ESC = b"\x1b"
_FRAGMENTS = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
_ESCAPES = {**CODES_TO_ENCODINGS, b"\x1b$@": "iso2022_jp"}  # JIS C 6226-1978, which pydicom does not support
_WITH_ESCAPES = ("iso2022_jp", "iso2022_jp_2")
"""Python's codecs that interpret the escape sequences themselves."""

_NO_CHARACTER_SET = ("", "ISO_IR 6", "ISO 2022 IR 6")
_MULTI_BYTE = frozenset({"shift_jis", "euc_kr", "iso_ir_58", "gb18030", "gbk", "gb2312"})
_LATIN = frozenset({"latin_1", "iso8859_2", "iso8859_3", "iso8859_4", "iso_ir_148", "iso8859_15"})

_SIGNS = frozenset("°µ²³±–—’«»®ªº")
"""Signs besides letters that occur in Western texts."""

_LONGEST_RUN = 3
"""Maximum number of consecutive accented letters in a text of Latin letters."""

_FIRST_FAR_LETTER = "\u0800"
"""From here on UTF-8 needs three bytes; a valid two-byte sequence may occur by chance in another encoding."""

_GUESSES = ("gb18030", "cp932", "euc_kr", "big5", "cp1251", "koi8_r", "cp1253", "cp1250", "iso8859_5")
"""Encodings tried if no character set is declared; one is accepted if the text then contains a word of the vocabulary."""


@lru_cache(maxsize=4096)
def decode_text(value: bytes, character_set: str) -> str:
    """Decode a text that is not plain ASCII.

    If the character set is missing, unknown or contradicted by the bytes, these are tried in order: UTF-8, the encodings of
    Western letters, and encodings in which the text contains a word of the vocabulary.

    Args:
        value: The bytes of the element.
        character_set: Specific Character Set (0008,0005), its values separated by backslashes.

    Returns:
        The text; :data:`UNDECODED` replaces bytes that could not be decoded.

    Example:
        >>> decode_text("Schädel".encode("latin-1"), "ISO_IR 100"), decode_text(b"\\x1b$BF,It\\x1b(B 5mm", "\\\\ISO 2022 IR 87")
        ('Schädel', '頭部 5mm')
    """
    declared = _declared_encoding(character_set)
    text = _decode_with_escapes(value, declared) if _ESC in value else _decode_without_escapes(value, declared)
    return text.strip(" \0")


def _declared_encoding(character_set: str) -> str | None:
    """Python's name of the first character set, which applies outside escape sequences; None if missing or unknown."""
    name = character_set.partition("\\")[0].strip(" \0").upper()
    if name in _NO_CHARACTER_SET:
        return None
    spelt = re.sub(r"^ISO[ _-]?IR[ _-]?", "ISO_IR ", re.sub(r"^ISO[ _-]2022[ _-]IR[ _-]?", "ISO 2022 IR ", name))
    found = python_encoding.get(spelt)
    return None if found is None else found.lower()


def _decode_with_escapes(value: bytes, declared: str | None) -> str:
    """Decode by escape sequences of the Standard, whether or not their character sets are declared."""
    texts = []
    for fragment in _FRAGMENTS.findall(value):
        if not fragment.startswith(_ESC):
            texts.append(fragment.decode() if fragment.isascii() else _decode_without_escapes(fragment, declared))
            continue
        length = 4 if fragment[1:3] in (b"$(", b"$)") else 3
        encoding = _ESCAPES.get(fragment[:length])
        if encoding is None:
            texts.append(UNDECODED + _decode_without_escapes(fragment[1:], declared))
        elif encoding in _WITH_ESCAPES:
            texts.append(fragment.decode(encoding, errors="replace"))
        else:
            texts.append(fragment[length:].decode(encoding, errors="replace"))
    return "".join(texts)


def _decode_without_escapes(value: bytes, declared: str | None) -> str:
    utf_8 = _decode_utf_8(value)
    if declared in _MULTI_BYTE:
        if utf_8 is not None and all(letter.isascii() or letter >= _FIRST_FAR_LETTER for letter in utf_8):
            return utf_8
        text = _decode_strictly(value, declared)
        if text is not None:
            return text
    if utf_8 is not None:
        return utf_8
    if declared is not None and declared not in _MULTI_BYTE:
        text = _decode_strictly(value, declared)
        if text is not None and (declared not in _LATIN or _is_latin(text)):
            return text
    western = _decode_strictly(value, "cp1252")
    if western is not None and _is_latin(western):
        return western
    for encoding in _GUESSES:
        text = _decode_strictly(value, encoding)
        if text is not None and _foreign_words().search(normal_form(text)):
            return text
    return value.decode("ascii", errors="replace")


def _decode_utf_8(value: bytes) -> str | None:
    """Decode UTF-8, also if software truncated the text within its last letter, for example at 64 bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        start = value[: error.start]
        if error.reason == "unexpected end of data" and not start.isascii():
            return start.decode() + UNDECODED
        return None


def _decode_strictly(value: bytes, encoding: str) -> str | None:
    try:
        return value.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _is_latin(text: str) -> bool:
    """Whether a text has plausible Latin letters, rather than misinterpreted bytes of another encoding."""
    foreign = re.findall(r"[^\x00-\x7f]+", text)
    return all(len(run) <= _LONGEST_RUN and all(sign.isalpha() or sign in _SIGNS for sign in run) for run in foreign)


@of_vocabulary
def _foreign_words(words: Vocabulary) -> re.Pattern[str]:
    """A pattern for all words of the vocabulary in non-Latin letters."""
    return re.compile(words.foreign())
