"""Checkpoints of public toolkits, read into networks of ours.

| module | what is in it |
| --- | --- |
| `wesep` | `load_wesep`: a network of WeSep or real-TSE; the table of those that can be read |
| `wesep_networks` | BSRNN, DPCCN and TF-GridNet of WeSep |
| `wesep_conv_tasnet` | ConvTasNet and SpEx+ of WeSep |
| `wesep_enrollment` | what WeSep's networks share: speaker encoder, fusion layers, call signature |
| `realtse` | BSRNN of WeSep real-TSE, with its five cues |
| `espnet` | `load_espnet`: TD-SpeakerBeam of ESPnet; the table of what its arguments become |
| `espnet_config` | ESPnet's configuration: what is read, what only training reads, the sample rate |
| `wespeaker` | `load_wespeaker`, `load_wespeaker_loss`: a speaker network or a loss of WeSpeaker |
| `wespeaker_networks` | the tables of WeSpeaker's networks: arguments, defaults, renaming rules |
| `wespeaker_family` | the form of these tables, and how they are applied |
| `resemblyzer` | `import_resemblyzer`: the GE2E d-vector in the wheel of Resemblyzer |
| `public_checkpoints` | reading the files: configuration, arguments, weights |
| `importing` | `wesep import-checkpoint`: from the files to a checkpoint folder |
| `wesep_training`, `espnet_training` | `wesep import-config`: training configurations in our terms |
| `training_notes` | what became of each key, and the YAML with these notes |
| `converters` | the table of the converters that `wesep models pull` uses |
| `model_pull` | `wesep models pull` and `verify`: from the registry's entry to a model in the store |

Importing this package registers the reader of WeSpeaker's `.pt` files with `wesep_py.checkpoint`.
"""

from wesep_py.interop.espnet import EspnetAdapter, load_espnet
from wesep_py.interop.wesep import WesepAdapter, load_wesep
from wesep_py.interop.wespeaker import WespeakerAdapter, WespeakerLossAdapter, load_wespeaker, load_wespeaker_loss

__all__ = [
    "EspnetAdapter",
    "WesepAdapter",
    "WespeakerAdapter",
    "WespeakerLossAdapter",
    "load_espnet",
    "load_wesep",
    "load_wespeaker",
    "load_wespeaker_loss",
]
