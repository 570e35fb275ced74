import pytest

from ich_lstm.labels import LABELS
from ich_lstm.pages import style


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0, "<1"), (0.0099, "<1"), (0.01, "1"), (0.125, "13"), (0.5, "50"), (0.99, "99"), (0.9901, ">99"), (1, ">99")],
)
def test_percent_never_promises(probability, text):
    assert style.percent(probability) == f"{text}\u00a0%"


def test_millimetres_has_a_minus():
    assert style.millimetres(-33.67) == "\u221233.7\u00a0mm"


def test_every_label_has_a_look():
    for table in (style.LABEL_NAMES, style.LABEL_COLORS, style.LABEL_DASHES):
        assert tuple(table) == LABELS
    assert len(set(style.LABEL_COLORS.values())) == len(LABELS)
