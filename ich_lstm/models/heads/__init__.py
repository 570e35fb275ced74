"""Sequence heads, which look along the slices of a scan; a class of settings that is imported here can be chosen."""

from ich_lstm.models.heads.head import Head as Head
from ich_lstm.models.heads.head import NoHead as NoHead
from ich_lstm.models.heads.head import ScanHead as ScanHead
from ich_lstm.models.heads.recurrent import GRU as GRU
from ich_lstm.models.heads.recurrent import LSTM as LSTM
