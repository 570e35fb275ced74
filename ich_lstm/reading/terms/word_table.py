"""The words that determine the choice of series, in many languages: the built-in table, and rows added by a hospital."""

import csv
import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from io import StringIO
from pathlib import Path
from typing import NamedTuple, TypeVar

from ich_lstm.errors import TableError
from ich_lstm.parallel import carry

TABLE = Path(__file__).with_name("word_table.csv")
COLUMNS = ("kind", "language", "word")

KINDS = {
    "localizer": "a scout view",
    "report": "a report or a screenshot",
    "report_about": "the subject of a report; applies only before `report_noun`",
    "report_noun": "a kind of report; applies only after `report_about`",
    "map": "a map, a rendering, or a result of other software",
    "virtual_plain": "contrast removed by computation; such a word must also be listed under `map`",
    "plain": "no contrast; such a series is preferred",
    "agent": "the agent, or its injection: means contrast, unless it is negated",
    "agent_short": "abbreviation of the agent; applies only after `with` or `without`",
    "of_agent": "word allowed between `without` and the agent",
    "with": "with",
    "without": "without, before the agent",
    "without_after": "without, after the agent",
    "and": "and, with: a phrase after it is not a negation",
    "denied": "a complete phrase that contains a word of contrast but means that none was given",
    "given": "a complete phrase that means contrast, although it contains a negation",
    "contrast": "contrast, indicated otherwise: a phase, vessels, bolus tracking",
    "no_agent": "a complete Contrast/Bolus Agent (0018,0010) that means no agent",
    "bone": "a bone reconstruction",
    "part": "another part of the body than the head",
    "head": "the head",
}
"""The kinds of words, and what each indicates about a series."""

MAX_TEXT = 256
"""Number of characters of a text that are examined; a description has at most 64 (PS3.5, 6.2: VR LO)."""

MAX_GAPS = 2
"""Maximum number of asterisks in a word: with many, the search takes exponential time."""

_SEPARATORS = re.compile(r"[\s_,;:()\[\]/|\\^]+")
_PLAIN_LETTERS = str.maketrans({"Ł": "L", "Ø": "O", "Æ": "AE", "Đ": "D", "İ": "I"})
# Han, Hiragana, Katakana, Hangul: scripts without spaces between words.
_UNSPACED = "\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
_BORDER = re.compile(rf"(?<=[{_UNSPACED}])(?=[^\s{_UNSPACED}])|(?<=[^\s{_UNSPACED}])(?=[{_UNSPACED}])")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")

Made = TypeVar("Made")


class Word(NamedTuple):
    """A row of the table.

    Args:
        kind: Kind of the word, one of ``KINDS``.
        language: Language of the word, for readers of the table.
        word: A word or a phrase. ``*`` stands for any further letters, ``~`` for a space, a hyphen or nothing; ``?`` makes
            the preceding letter optional.
    """

    kind: str
    language: str
    word: str


def normal_form(text: str) -> str:
    """Convert to upper case without accents, with single spaces for separators and between spaced and unspaced scripts.

    Example:
        >>> normal_form("Head_Plain(5mm)"), normal_form("Schädel nativ"), normal_form("头部CTA")
        ('HEAD PLAIN 5MM', 'SCHADEL NATIV', '头部 CTA')
    """
    text = text[:MAX_TEXT]
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = unicodedata.normalize("NFC", "".join(letter for letter in decomposed if not unicodedata.combining(letter)))
        text = _BORDER.sub(" ", text)
    return _SEPARATORS.sub(" ", text.upper().translate(_PLAIN_LETTERS)).strip()


def _pattern(word: str) -> str:
    """A word as a regular expression for normal forms; only ``*``, ``~`` and ``?`` have a special meaning."""
    pieces = re.split(r"([*~?])", word)
    form = "".join(_escaped(piece, word) if place % 2 == 0 else piece for place, piece in enumerate(pieces))
    return re.sub(r"(?<!\\)[*~]", lambda sign: r"\w*" if sign[0] == "*" else "[ -]?", form)


def _escaped(piece: str, word: str) -> str:
    # Spaces at the ends of a piece belong to the phrase, but the normal form drops them.
    form = normal_form(piece)
    before = " " if piece[:1].isspace() and not word.startswith(piece) else ""
    after = " " if piece[-1:].isspace() and not word.endswith(piece) else ""
    return re.escape(f"{before}{form}{after}" if form else "")


def _borders(word: str) -> tuple[str, str]:
    """Patterns before and after a word that must not be part of a longer one; scripts without spaces need none."""
    ends = word.strip("?~")
    before = r"(?<!\w)" if re.match(r"\w", ends) and not _IS_UNSPACED.match(ends[0]) else ""
    after = r"(?!\w)" if re.search(r"[\w+-]$", ends) and not _IS_UNSPACED.match(ends[-1]) else ""
    return before, after


class Vocabulary:
    """Words by kind, as patterns for texts in :func:`normal_form`.

    Args:
        words: Rows of the table.
    """

    def __init__(self, words: Iterable[Word]) -> None:
        self._words: dict[str, list[str]] = defaultdict(list)
        for word in words:
            self._words[word.kind].append(word.word)

    def of(self, kind: str) -> list[str]:
        """The words of a kind, as written in the table."""
        return self._words[kind]

    def any_of(self, *kinds: str) -> str:
        """A pattern for the words of some kinds, which may be parts of longer words."""
        return _either(map(_pattern, self._all(kinds)))

    def whole(self, *kinds: str) -> str:
        """A pattern for the words of some kinds, each as a complete word."""
        return self._bordered(self._all(kinds))

    def foreign(self) -> str:
        """A pattern for all words with letters beyond ASCII that are too long to occur by chance."""
        every = [word for word in self._all(self._words) if not normal_form(word).isascii()]
        return self._bordered(word for word in every if _IS_UNSPACED.search(word) or len(word.strip("*~?")) > 3)

    def _all(self, kinds: Iterable[str]) -> list[str]:
        return [word for kind in list(kinds) for word in self._words[kind]]

    @staticmethod
    def _bordered(words: Iterable[str]) -> str:
        # The border is tested once for all words that share it, which makes the search five times faster.
        alike: dict[tuple[str, str], list[str]] = defaultdict(list)
        for word in words:
            alike[_borders(word)].append(_pattern(word))
        return _either(f"{before}{_either(patterns)}{after}" for (before, after), patterns in alike.items())


def _either(patterns: Iterable[str]) -> str:
    # Longer alternatives come first; without any, the pattern never matches.
    return f"(?:{'|'.join(sorted(set(patterns), key=len, reverse=True)) or '(?!)'})"


def read_words(path: Path | str) -> tuple[Word, ...]:
    """Read a table of words: a CSV in UTF-8 with the columns ``kind``, ``language`` and ``word``.

    Args:
        path: The CSV file.

    Raises:
        TableError: ``missing_table``, ``missing_columns``, or ``bad_vocabulary`` with the number of the line.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        what = error.strerror or str(error)
        raise TableError("missing_table", where=str(path), got=what, expected=f"a CSV with {', '.join(COLUMNS)}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _bad_vocabulary(path, line, "bytes that are not UTF-8", "UTF-8", "Save the table as CSV in UTF-8.") from error
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    found: list[Word] = []
    try:
        header = tuple(name.strip().lower() for name in next(reader, []))
        if header != COLUMNS:
            raise TableError(
                "missing_columns",
                where=f"{path}, line 1",
                got=f"columns {', '.join(header) or '(none)'}",
                expected=", ".join(COLUMNS),
                todo="Begin the table with this line.",
            )
        for cells in reader:
            if any(cell.strip() for cell in cells):
                found.append(_read_row(path, reader.line_num, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise _bad_vocabulary(
            path, reader.line_num, str(error), "comma-separated values", "Check the quotes of this line."
        ) from error
    return tuple(found)


def _read_row(path: Path, line: int, cells: list[str]) -> Word:
    if len(cells) != len(COLUMNS):
        raise _bad_vocabulary(path, line, f"{len(cells)} cells", ", ".join(COLUMNS), "Put a word that holds a comma in quotes.")
    word = Word(*cells)
    if word.kind not in KINDS:
        raise _bad_vocabulary(path, line, f"kind {word.kind!r}", f"one of {', '.join(KINDS)}", "Correct the kind.")
    letters = word.word.strip("*~? ")
    if not letters or not normal_form(letters):
        raise _bad_vocabulary(path, line, f"word {word.word!r}", "letters", "Write a word, or remove the line.")
    if word.word.count("*") > MAX_GAPS or re.search(r"^\?|[*~?][?*]", word.word):
        todo = "Write a word with fewer asterisks, or several words."
        raise _bad_vocabulary(path, line, f"word {word.word!r}", f"at most {MAX_GAPS} asterisks, and ? only after a letter", todo)
    return word


def _bad_vocabulary(path: Path, line: int, got: str, expected: str, todo: str) -> TableError:
    return TableError("bad_vocabulary", where=f"{path}, line {line}", got=got, expected=expected, todo=todo)


@cache
def _built_in_words() -> tuple[Word, ...]:
    return read_words(TABLE)


_added: tuple[Word, ...] = ()


def added_words() -> tuple[Word, ...]:
    """The words that were added to the library's own in this process."""
    return _added


def use_words(words: Sequence[Word]) -> None:
    """Add words to the library's own, for this process and the processes that the library starts from it.

    Args:
        words: Rows, for example from :func:`read_words`. They replace the words added by an earlier call; an empty sequence
            leaves only the library's own words.
    """
    global _added
    if tuple(words) != _added:
        _added = tuple(words)
        for clear_cache in _cache_clearers:
            clear_cache()


def use_vocabulary(path: Path | str | None) -> str:
    """Add the words of a hospital's table, for this process and the processes that the library starts from it.

    Args:
        path: The table (:func:`read_words`). Its words replace those added by an earlier call; None leaves only the
            library's own words.

    Returns:
        A SHA-256 digest of the words in hexadecimal digits, for the record of a run; empty without a table.

    Raises:
        TableError: If the table is missing or malformed.

    Example:
        >>> use_vocabulary("words-of-our-hospital.csv")  # doctest: +SKIP
        '9f86d081884c7d65...'
    """
    words = () if path is None else read_words(path)
    use_words(words)
    if path is None:
        return ""
    return hashlib.sha256("\n".join(",".join(word) for word in words).encode()).hexdigest()


_cache_clearers: list[Callable[[], None]] = []


def of_vocabulary(make: Callable[[Vocabulary], Made]) -> Callable[[], Made]:
    """Make a function of the vocabulary that is computed once for the current words."""

    @lru_cache(maxsize=1)
    def cached() -> Made:
        return make(Vocabulary((*_built_in_words(), *_added)))

    _cache_clearers.append(cached.cache_clear)
    return cached


carry(added_words, use_words)
