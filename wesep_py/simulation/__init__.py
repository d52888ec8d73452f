"""Simulation of mixtures.

    SimulationConfig ──► Simulator.draw(epoch, index) ──► Recipe ──► render ──► Sample
    ranges, weights      one random choice                as data               mixture, images, targets, enrollments

The mixture is summed in one place: `rendering.mix`.

| module | content |
| --- | --- |
| `description` | the data on this path: `SimulationConfig`, `Recipe`, effects |
| `simulator` | `Simulator`: draws recipes, and samples |
| `speech` | drawing of speech: speakers, segments, overlap, conversations |
| `rooms` | room impulse responses, banks of them, reverberation |
| `noise` | drawing and rendering of noise |
| `level_setting` | gains for the drawn SIR, SNR and levels |
| `rendering` | `render`, `mix`, `Sample`; enrollments |
| `listed_mixtures`, `mixture_stream` | simulators of listed mixtures, and of a stream of shards |
| `simulated_corpus`, `corpus_tree` | `wesep simulate` and `wesep render`: many mixtures, to files |
| `librimix`, `trial_audio` | LibriMix from its metadata; the waveforms of an evaluation's trials |
| `dry_batch`, `batched_effects`, `batched_rendering` | the same mixtures rendered in batches on a device |
"""

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
from wesep_py.simulation.rendering import MixtureSpeaker, Sample, mix, render
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
    "mix",
    "read_recipes",
    "render",
    "render_trial",
    "write_recipes",
]
