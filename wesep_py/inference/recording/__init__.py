"""A recording of any length through a network: whole or in blocks, in memory or from file to file."""
