"""Synthetic head CT with known truth, written as DICOM in the layout of the RSNA 2019 data set."""

from ich_lstm.phantom.scan import VISIBLE_HU_MM2, PhantomScan, make_head
from ich_lstm.phantom.settings import PhantomSettings
from ich_lstm.phantom.write import write_phantom

__all__ = ["VISIBLE_HU_MM2", "PhantomScan", "PhantomSettings", "make_head", "write_phantom"]
