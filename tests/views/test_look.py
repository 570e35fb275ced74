import pytest

from ich_lstm.labels import LABELS
from ich_lstm.views import look


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0, "<1"), (0.0099, "<1"), (0.01, "1"), (0.125, "13"), (0.5, "50"), (0.99, "99"), (0.9901, ">99"), (1, ">99")],
)
def test_percent_never_promises(probability, text):
    assert look.percent(probability) == f"{text}\u00a0%"


def test_millimetres_has_a_minus():
    assert look.millimetres(-33.67) == "\u221233.7\u00a0mm"


def test_every_label_has_a_look():
    for table in (look.LABEL_NAMES, look.LABEL_COLORS, look.LABEL_DASHES):
        assert tuple(table) == LABELS
    assert len(set(look.LABEL_COLORS.values())) == len(LABELS)
