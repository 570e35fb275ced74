"""The notebook of first steps, executed as a reader would: every picture appears, and no cell floods the page."""

from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
jupyter_client = pytest.importorskip("jupyter_client", reason="needs jupyter_client")
pytest.importorskip("ipykernel", reason="needs ipykernel")

NOTEBOOK = Path(__file__).parent.parent / "examples" / "first_steps.ipynb"
MOST_LINES = 10


def execute(notebook: Any, folder: Path) -> Any:
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def shown(cell: Any) -> set[str]:
    return {kind for output in cell.outputs for kind in output.get("data", {})}


def lines(cell: Any) -> int:
    """What a cell prints; a carriage return begins a line too, for a page that is saved shows each."""
    printed = "".join(output["text"] for output in cell.outputs if output.output_type == "stream")
    return len(printed.replace("\r", "\n").splitlines())


def test_it_is_kept_without_outputs() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


SMALLER = {"patients=12, size=128": "patients=10, size=64, slices=8", "max_epochs=3": "max_epochs=1", "resnet10t": "test_resnet"}


@pytest.mark.parametrize("changes", [SMALLER, pytest.param({}, marks=pytest.mark.slow)], ids=["smaller", "as-it-is"])
def test_every_picture_appears_and_no_cell_prints_more_than_ten_lines(changes: dict[str, str], tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for old, new in changes.items():
        (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source)
        cell.source = cell.source.replace(old, new)
    execute(notebook, tmp_path)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    plotted = [cell for cell in cells if cell.source.splitlines()[-1].partition("(")[0].endswith(".plot")]
    assert len(plotted) == 5
    assert all("image/png" in shown(cell) for cell in plotted)
    (prediction,) = (cell for cell in cells if cell.source.endswith("\nprediction"))
    assert "text/html" in shown(prediction)
    assert {cell.source: lines(cell) for cell in cells if lines(cell) > MOST_LINES} == {}


@pytest.mark.parametrize(
    ("typed", "offered", "hidden"),
    [
        pytest.param(
            "ich_lstm.",
            {"ScanClassifier", "ScanDataModule", "explain", "read_scan"},
            {"import_module", "TYPE_CHECKING", "Any"},
            marks=pytest.mark.slow,
        ),
        ("ich_lstm.LSTM(hid", {"hidden_size="}, set()),
        pytest.param("ich_lstm.ScanDataModule(prepro", {"preprocessing="}, set(), marks=pytest.mark.slow),
    ],
)
def test_tab_offers_public_names_and_every_keyword(typed: str, offered: set[str], hidden: set[str]) -> None:
    manager, client = jupyter_client.manager.start_new_kernel(kernel_name="python3")
    try:
        client.execute_interactive("import ich_lstm", timeout=120)
        matches = set(client.complete(typed, reply=True, timeout=120)["content"]["matches"])
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    names = {match.rpartition(".")[2] for match in matches}
    assert offered <= names, names
    assert not hidden & names
