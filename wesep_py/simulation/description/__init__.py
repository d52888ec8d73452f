"""simulation.description."""
