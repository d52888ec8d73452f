"""How a mixture is made: the recipe of a mixture, its drawing, its rendering; noise, rooms, levels, trials."""

from wesep_py.simulation.description.effects import EffectsConfig
from wesep_py.simulation.description.recipe import Recipe, read_recipes, write_recipes
from wesep_py.simulation.description.simulation_config import (
    ConversationConfig,
    EnrollmentConfig,
    ModulationConfig,
    NoiseConfig,
    NoiseGroup,
    RoomConfig,
    SimulationConfig,
)
from wesep_py.simulation.rendering import MixtureSpeaker, Sample, render
from wesep_py.simulation.simulator import Simulator
from wesep_py.simulation.trial_audio import TrialAudio, render_trial

__all__ = [
    "ConversationConfig",
    "EffectsConfig",
    "EnrollmentConfig",
    "MixtureSpeaker",
    "ModulationConfig",
    "NoiseConfig",
    "NoiseGroup",
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
