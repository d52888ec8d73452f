"""Checkpoints of public toolkits, read into networks of ours."""

from wesep_py.interop.wesep import WesepAdapter, load_wesep
from wesep_py.interop.wespeaker import WespeakerAdapter, load_wespeaker

__all__ = ["WesepAdapter", "WespeakerAdapter", "load_wesep", "load_wespeaker"]
