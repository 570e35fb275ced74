"""Labels joined to the scans of a prepared folder."""

from typing import Any

from ich_lstm.data.joining.join import LabelledScan, join_labels
from ich_lstm.data.joining.locate import locate_labels
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.data.tables.labelled import LabelTable, Unmatched


def label_scans(
    folder: PreparedFolder, table: LabelTable, *, unmatched: Unmatched = "stop", **settings: Any
) -> list[LabelledScan]:
    """The labelled scans of a prepared folder.

    Args:
        folder: The folder.
        table: The labels.
        unmatched: What may be left out where labels and images do not match.
        **settings: Further settings of `join_labels`.
    """
    located = locate_labels(table, folder.images)
    located.check_unmatched(unmatched)
    return join_labels(located, **settings).scans(folder.cache)
