"""How a mixture is made: the recipe of a mixture, its drawing, its rendering; noise, rooms, levels, trials."""

from wesep_py.simulation.config import EnrollmentConfig, NoiseConfig, RoomConfig, SimulationConfig
from wesep_py.simulation.draw import Simulator
from wesep_py.simulation.recipe import Recipe, read_recipes, write_recipes
from wesep_py.simulation.render import Sample, render
from wesep_py.simulation.trials import TrialAudio, render_trial

__all__ = [
    "EnrollmentConfig",
    "NoiseConfig",
    "Recipe",
    "RoomConfig",
    "Sample",
    "SimulationConfig",
    "Simulator",
    "TrialAudio",
    "read_recipes",
    "render",
    "render_trial",
    "write_recipes",
]
