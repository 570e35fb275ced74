"""Formatting of values for people."""

from ich_lstm.formatting import first_of


def test_ten_names_are_shown_whole_and_of_eleven_the_last_is_counted() -> None:
    assert first_of(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert first_of(range(11)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1 more"
    assert first_of([]) == ""


def test_names_may_come_from_an_iterator_or_be_only_the_beginning_of_the_list() -> None:
    assert first_of((name for name in "abcde"), 2, separator="; ") == "a; b and 3 more"
    assert first_of(["a", "b"], total=12_002) == "a, b and 12,000 more"
    assert first_of(["a", "b"], total=2) == "a, b"
