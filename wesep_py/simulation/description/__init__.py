"""Descriptions of mixtures: what may be drawn, and what was drawn. No audio is read here.

| module | content |
| --- | --- |
| `simulation_config` | `SimulationConfig`: ranges and weights that mixtures are drawn from; noise, rooms, enrollments |
| `recipe` | `Recipe`: one mixture as it was drawn, and its parts; reading and writing JSONL |
| `effects` | effects on a waveform (`Clipping`, `PacketLoss`, …), and `EffectsConfig`, which draws them |
| `ranges` | checks of ranges and weights; choosing by weight |
"""
