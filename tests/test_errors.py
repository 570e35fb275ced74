"""The family of errors."""

import pickle

import pytest

from ich_lstm import IchLstmError, errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, IchLstmError)]


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_is_caught_as_one_family(self, kind: type[IchLstmError]) -> None:
        with pytest.raises(IchLstmError):
            raise kind("bad_thing", where="here", got="a thing")

    def test_says_everything_that_it_was_told(self, kind: type[IchLstmError]) -> None:
        text = str(kind("bad_thing", where="the place", got="seven", expected="eight", todo="Add one."))
        for part in (kind.__name__, "bad_thing", "the place", "seven", "eight", "Add one."):
            assert part in text
        assert "\n" not in text

    def test_comes_home_from_a_worker_whole(self, kind: type[IchLstmError]) -> None:
        error = kind("bad_thing", where="the place", got="seven", expected="eight", todo="Add one.")
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is kind
        assert str(back) == str(error)
        assert vars(back) == vars(error)


def test_detail_names_no_place() -> None:
    error = IchLstmError("bad_thing", where="/the/secret/place", got="seven")
    assert "secret" not in error.detail
    assert "seven" in error.detail
