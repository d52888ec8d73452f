"""Rooms that sources stand in: drawn and computed, or read from a bank, which is simulated or recorded."""
