"""How a mixture is made: the recipe of a mixture, its drawing, its rendering; noise, rooms, levels, trials."""

from wesep_py.simulation.config import (
    ConversationConfig,
    EnrollmentConfig,
    ModulationConfig,
    NoiseConfig,
    NoiseGroup,
    RoomConfig,
    SimulationConfig,
)
from wesep_py.simulation.draw import Simulator
from wesep_py.simulation.effects_config import EffectsConfig
from wesep_py.simulation.recipe import Recipe, read_recipes, write_recipes
from wesep_py.simulation.render import Sample, Voice, render
from wesep_py.simulation.trials import TrialAudio, render_trial

__all__ = [
    "ConversationConfig",
    "EffectsConfig",
    "EnrollmentConfig",
    "ModulationConfig",
    "NoiseConfig",
    "NoiseGroup",
    "Recipe",
    "RoomConfig",
    "Sample",
    "SimulationConfig",
    "Simulator",
    "TrialAudio",
    "Voice",
    "read_recipes",
    "render",
    "render_trial",
    "write_recipes",
]
