"""Mixtures rendered in batch on a device: what a worker draws and reads, and what the device computes of it."""
