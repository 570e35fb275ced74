"""The table of words: its rows, what a hospital adds to it, and tables that are no such table."""

import multiprocessing
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from ich_lstm.errors import TableError
from ich_lstm.parallel import map_ahead
from ich_lstm.reading.terms import vocabulary
from ich_lstm.reading.terms.word_table import (
    KINDS,
    TABLE,
    Vocabulary,
    Word,
    added_words,
    normal_form,
    read_words,
    use_vocabulary,
    use_words,
)


@pytest.fixture(autouse=True)
def own_words() -> Iterator[None]:
    """Leave the library's own words to the tests that come after."""
    yield
    use_words(())


def table(folder: Path, *rows: str, encoding: str = "utf-8") -> Path:
    path = folder / "vocabulary.csv"
    path.write_bytes("\n".join(["kind,language,word", *rows]).encode(encoding))
    return path


class TestTable:
    def test_every_kind_has_words_and_no_word_stands_twice(self) -> None:
        rows = read_words(TABLE)
        assert {row.kind for row in rows} == set(KINDS)
        assert len({(row.kind, row.word) for row in rows}) == len(rows)
        assert all(row.language for row in rows)

    @pytest.mark.parametrize("kind", ["localizer", "report", "map", "contrast", "bone", "plain", "part", "head", "denied"])
    def test_every_word_is_found_as_it_stands(self, kind: str) -> None:
        every = [row for row in read_words(TABLE) if row.kind == kind]
        lost = []
        for row in every:
            text = row.word.replace("*", "").replace("~", " ").replace("?", "")
            if not re.search(Vocabulary([row]).whole(kind), normal_form(text)):
                lost.append(row)
        assert lost == []

    def test_a_word_is_found_in_no_longer_one(self) -> None:
        pattern = Vocabulary([Word("bone", "en", "BONE"), Word("bone", "zh", "骨")]).whole("bone")
        assert [bool(re.search(pattern, normal_form(text))) for text in ("bone", "boney", "头骨窗", "x-bone_1")] == [
            True,
            False,
            True,
            True,
        ]

    def test_signs_of_regular_expressions_mean_themselves(self) -> None:
        pattern = Vocabulary([Word("map", "en", "A.B"), Word("map", "en", "C+")]).whole("map")
        assert [bool(re.search(pattern, normal_form(text))) for text in ("A.B", "AxB", "C+ head", "CC")] == [
            True,
            False,
            True,
            False,
        ]


class TestAdditions:
    def test_a_hospital_adds_its_own_words(self, tmp_path: Path) -> None:
        assert not vocabulary.names_contrast("Kopf Protokoll 7b")
        use_vocabulary(table(tmp_path, "contrast,de,PROTOKOLL 7B", "denied,de,OPTION~KM*", "map,en,HOUSE~MAP*", "part,de,FUSS"))
        assert vocabulary.names_contrast("Kopf Protokoll 7b")
        assert not vocabulary.names_contrast("Schädel Option KM")
        assert vocabulary.names_map("HOUSEMAP 1")
        assert vocabulary.names_other_part("Fuß links", "")

    def test_the_library_s_own_words_stay(self, tmp_path: Path) -> None:
        use_vocabulary(table(tmp_path, "contrast,de,PROTOKOLL 7B"))
        assert vocabulary.names_contrast("mit KM")
        assert not vocabulary.names_contrast("ohne KM")

    def test_a_second_table_replaces_the_first_and_none_takes_it_away(self, tmp_path: Path) -> None:
        first = use_vocabulary(table(tmp_path, "bone,de,XAA"))
        second = use_vocabulary(table(tmp_path, "bone,de,XBB"))
        assert first != second
        assert [vocabulary.names_bone(name) for name in ("XAA", "XBB")] == [False, True]
        use_words(())
        assert not vocabulary.names_bone("XBB")

    def test_of_another_script_with_a_byte_order_mark_and_empty_lines(self, tmp_path: Path) -> None:
        use_vocabulary(table(tmp_path, "", "contrast,th,ฉีดสี", " contrast , th , สารทึบ ", ",,", encoding="utf-8-sig"))
        assert vocabulary.names_contrast("สมอง ฉีดสี")
        assert vocabulary.names_contrast("สารทึบ")

    def test_processes_that_the_library_starts_know_them(self, tmp_path: Path) -> None:
        use_vocabulary(table(tmp_path, "contrast,de,PROTOKOLL 7B"))
        names = ["Protokoll 7b", "Kopf", "Protokoll 7b"]
        assert list(map_ahead(vocabulary.names_contrast, names, workers=2)) == [True, False, True]
        use_words(())
        assert list(map_ahead(vocabulary.names_contrast, names, workers=2)) == [False, False, False]

    def test_an_executor_of_the_caller_knows_them_too(self, tmp_path: Path) -> None:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            use_vocabulary(table(tmp_path, "contrast,de,PROTOKOLL 7B"))
            assert list(map_ahead(vocabulary.names_contrast, ["Protokoll 7b"], 1, pool)) == [True]
            assert len(added_words()) == 1
            use_words(())
            assert list(map_ahead(vocabulary.names_contrast, ["Protokoll 7b"], 1, pool)) == [False]


class TestMalformed:
    @pytest.mark.parametrize(
        ("rows", "line", "said"),
        [
            (("contrast,en,GIVEN", "contrasts,en,GIVEN"), 3, "contrasts"),
            (("contrast,en",), 2, "2 cells"),
            (("contrast,en,GIVEN,too", "bone,en,X"), 2, "4 cells"),
            (("contrast,en,",), 2, "word"),
            (("contrast,en,*",), 2, "word"),
            (("contrast,en,( )",), 2, "word"),
            (("contrast,en,A*B*C*D",), 2, "asterisks"),
            (("contrast,en,A**",), 2, "asterisks"),
            (("bone,en,X", "", '"contrast,en,X'), 4, ""),
        ],
    )
    def test_the_line_is_named(self, rows: tuple[str, ...], line: int, said: str, tmp_path: Path) -> None:
        with pytest.raises(TableError) as error:
            use_vocabulary(table(tmp_path, *rows))
        assert error.value.code == "bad_vocabulary"
        assert f"vocabulary.csv, line {line}:" in str(error.value)
        assert said in str(error.value)
        assert added_words() == ()

    def test_without_its_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "vocabulary.csv"
        path.write_text("contrast;en;GIVEN\n")
        with pytest.raises(TableError) as error:
            read_words(path)
        assert error.value.code == "missing_columns"
        path.write_text("")
        with pytest.raises(TableError):
            read_words(path)

    def test_of_another_encoding(self, tmp_path: Path) -> None:
        with pytest.raises(TableError) as error:
            read_words(table(tmp_path, "contrast,de,X", "contrast,de,SPÄT", encoding="cp1252"))
        assert "line 3" in str(error.value)
        assert "UTF-8" in str(error.value)

    def test_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(TableError) as error:
            read_words(tmp_path / "none.csv")
        assert error.value.code == "missing_table"
