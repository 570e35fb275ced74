"""Synthetic head CT with known truth, written in the layout of a known data set."""

from typing import Any

from ich_lstm.phantom.layouts.cq500 import Cq500Layout
from ich_lstm.phantom.layouts.ct_ich import CtIchLayout
from ich_lstm.phantom.layouts.hospital import HospitalLayout
from ich_lstm.phantom.layouts.layout import Layout
from ich_lstm.phantom.layouts.rsna import RsnaLayout
from ich_lstm.phantom.scan import VISIBLE_HU_MM2, PhantomScan, make_head
from ich_lstm.phantom.scanner.localizer import make_localizer
from ich_lstm.phantom.scanner.reconstruction import Reconstruction
from ich_lstm.phantom.settings import PhantomSettings
from ich_lstm.phantom.write import write_phantom

LAYOUTS: dict[str, type[Layout[Any]]] = {layout.name: layout for layout in (RsnaLayout, Cq500Layout, CtIchLayout, HospitalLayout)}
"""The layouts by their names, as ``ich-phantom --layout`` calls them."""

__all__ = [
    "LAYOUTS",
    "VISIBLE_HU_MM2",
    "Cq500Layout",
    "CtIchLayout",
    "HospitalLayout",
    "Layout",
    "PhantomScan",
    "PhantomSettings",
    "Reconstruction",
    "RsnaLayout",
    "make_head",
    "make_localizer",
    "write_phantom",
]
