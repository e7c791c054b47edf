"""The switch of a tunnel of Ethernet frames: sans-IO, without a clock. `switch.py` says how."""

from .drops import SwitchDrop
from .frame import LOOKED_AT, Frame
from .mac_table import AGEING_TIME
from .switch import EthernetSwitch

__all__ = ["AGEING_TIME", "LOOKED_AT", "EthernetSwitch", "Frame", "SwitchDrop"]
