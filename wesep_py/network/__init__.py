"""The extraction network and its parts: backbones, cues, speaker encoders and the presence head.

The path of a voice through the network (`extraction_network.TargetSpeakerExtractor.extract`):

1. The enrollment is filtered and scaled like the mixture, and each cue prepares its tensors from it, once per voice
   (`cues`). Some cues need a speaker encoder (`speaker`).
2. The mixture `[B, T]` passes the high-pass and is divided by its level (`preprocessing`).
3. Waveform-stage cues put samples before it.
4. `backbone.analyse` turns it into features and a spectrum, or an output of learned filters (`backbones`).
5. Input-stage cues append feature channels or replace them.
6. `backbone.encode` turns the features into a latent. At each of its fusion points it calls the latent-stage cues.
7. `backbone.synthesise` turns the latent into the estimate `[B, T]`, whose level is that of the mixture again.
8. The presence head says for each frame whether the target speaks (`presence_head`).

| module | contents |
| --- | --- |
| `extraction_network` | the whole network, `build_network` and `load_network` |
| `model_config` | its configuration |
| `preprocessing` | high-pass and level of its input |
| `live_mode` | the causal network on its parameters |
| `streaming_network` | a causal network as one step of a stream |
| `backbones` | BSRNN, TF-GridNet, DPCCN, Conv-TasNet (also SpEx+ and TD-SpeakerBeam), SkiM, SpeakerBeam-SS |
| `self_supervised_tasnet` | a backbone of `backbones` and `speaker`: SSL-TD-SpeakerBeam |
| `personal_vad` | when a voice speaks, without extraction |
| `cues` | embedding, context, band attention, TF-map, USEF, listen first; fusion operators |
| `speaker` | speaker encoders: networks, pooling, losses |
| `presence_head` | presence detection |
"""
