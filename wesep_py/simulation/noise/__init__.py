"""Noise under speech: what there may be of it, how it is drawn, and its samples."""
