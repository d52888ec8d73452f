"""Checkpoints of public toolkits, read into networks of ours."""

from wesep_py.interop.wesep import WesepAdapter, load_wesep

__all__ = ["WesepAdapter", "load_wesep"]
