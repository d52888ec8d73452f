"""Personal voice activity detection: when an enrolled person speaks, without extracting the voice.

After Ding et al., "Personal VAD: speaker-conditioned voice activity detection" (Odyssey 2020). Theirs are the three
classes of a frame (nobody speaks, the target speaks, only others speak) and recurrent layers on log-mel features beside
an embedding of the enrollment (`speaker`). Without `speaker` the network is ours: each frame is compared with the
enrollment's frames, because frame-level cues learn from fewer speakers than embeddings do. The first comparison is that
of the TF-map, of frames that resemble each other; the second an attention.

With `speaker` and `score`, the encoder also embeds windows of the mixture, and their cosine with the enrollment's
embedding is joined to every frame. Ding et al. call this SET, score and embedding; the windows are a choice of ours.

    enrollment ─► log-mel ─► layer ─┬────────────► LSTM ─► frames ─► mean: voice
                             (same) │                        │                │
    mixture ────► log-mel ─► layer ─┴─► matched ─► LSTM ─► attention, times voice ─► linear ─► LSTM ─► 3 logits

The level of a recording is removed, but not its average spectrum, which tells voices apart.

A frame lasts 10 ms, and frame t covers the samples from t · 10 ms on, so that frames are those of `Sample.activity`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wesep_py import checkpoint
from wesep_py.common.config import construct, to_plain
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.common.registry import no_plugins
from wesep_py.common.safe_building import build_within, check_numbers
from wesep_py.features import KaldiFilterbank
from wesep_py.network.backbones.spectrum import full_precision
from wesep_py.network.cues import PreparedEnrollment
from wesep_py.network.cues.cue import cross_attention
from wesep_py.network.speaker import SpeakerConfig, build_encoder, completed_speaker, length_mask

TASK = "presence"
"""Value of `task` in the configuration of a checkpoint, and in that of its training."""
SILENCE, TARGET, OTHERS = 0, 1, 2
"""Classes of a frame: nobody speaks; the target speaks, alone or with others; only others speak."""
NUM_CLASSES = 3
SCORE_SCALE = 10.0
"""Factor on scores before they are joined to frames: scores of different voices differ by some tenths."""
WINDOW_MS, HOP_MS = 25.0, 10.0
MATCH_TEMPERATURE = 20.0
"""Factor on cosines with which the network begins: the frames that resemble most dominate, as in the TF-map."""


@dataclass
class ScoreConfig:
    """Windows of the mixture whose embeddings are compared with the enrollment's.

    Attributes:
        window_s: length of a window, in seconds.
        hop_s: from the start of a window to the start of the next; at most `window_s`, in whole frames of 10 ms.

    Raises:
        ValueError: a value out of range.
    """

    window_s: float = 1.5
    hop_s: float = 0.75

    def __post_init__(self) -> None:
        if not 0.1 <= self.window_s <= 10:
            raise ValueError(f"window_s: is {self.window_s}; 0.1 to 10 s is allowed")
        if not 1 <= self.hop_frames <= self.window_s * 1000 / HOP_MS:
            raise ValueError(f"hop_s: is {self.hop_s}; 0.01 s to window_s ({self.window_s} s) is allowed")

    @property
    def hop_frames(self) -> int:
        """Frames from the start of a window to the start of the next."""
        return round(self.hop_s * 1000 / HOP_MS)


@dataclass
class PersonalVADConfig:
    """Configuration of a personal VAD.

    Attributes:
        sample_rate: Hz; at least 8000.
        num_mel_bins: features of a frame.
        hidden: units of each recurrent layer, for all of its directions together; even.
        num_heads: heads of the attention to the enrollment; `hidden` is a multiple of it.
        speaker: a speaker encoder, whose embedding is joined to every frame instead of the attention; or `null`.
        score: windows of the mixture that the encoder embeds as well; or `null`. It needs `speaker`.
        causal: whether no frame depends on later ones, but for 7.5 ms of its own window. The level that is subtracted
            from the log-mel features is then that of all frames until now, instead of the whole recording's.

    Raises:
        ValueError: a value out of range.
    """

    sample_rate: int = 16000
    num_mel_bins: int = 40
    hidden: int = 64
    num_heads: int = 4
    speaker: SpeakerConfig | None = None
    score: ScoreConfig | None = None
    causal: bool = False

    def __post_init__(self) -> None:
        if self.sample_rate < 8000:
            raise ValueError(f"sample_rate: is {self.sample_rate}; 8000 Hz or more is allowed")
        if self.hidden < 2 or self.hidden % 2 or self.num_heads < 1 or self.hidden % self.num_heads:
            raise ValueError(f"hidden: is {self.hidden}; an even multiple of num_heads ({self.num_heads}) is needed")
        if self.score is not None and self.speaker is None:
            raise ValueError("score: compares embeddings; give a speaker encoder, or leave it out")
        if self.score is not None and self.causal:
            raise ValueError("score: looks at whole windows, also at what comes later; leave it out, or causal: false")


class VADState(NamedTuple):
    """Streaming state of a causal personal VAD: power of its frames until now, and state of its recurrent layers."""

    count: int
    total: Tensor
    recurrent: tuple[Any, Any]


class PersonalVAD(nn.Module):
    """Personal VAD: three logits for each frame of 10 ms, given an enrollment.

    Args:
        config: a `PersonalVADConfig`, or a mapping with its keys.
        initialise: whether to read the speaker encoder's checkpoint; false where weights are loaded afterwards.

    Attributes:
        hop_length: samples of a frame.
        before, after: samples before and after it that the frame also needs.
        grid: a part of a recording has to begin at a multiple of this many frames, so that its windows are those of
            the whole recording.

    Raises:
        ConfigError: a key of the configuration is unknown, of the wrong type or out of range.

    >>> network = PersonalVAD({"hidden": 8})
    >>> network(torch.randn(2, 8000), network.prepare(torch.randn(2, 16000))).shape
    torch.Size([2, 50, 3])
    """

    def __init__(self, config: PersonalVADConfig | Mapping[str, Any], initialise: bool = True) -> None:
        super().__init__()
        if not isinstance(config, PersonalVADConfig):
            config = construct(PersonalVADConfig, config, "model")
        self.config: dict[str, Any] = {"task": TASK, **to_plain(config)}
        self.sample_rate, self.causal, self.score = config.sample_rate, config.causal, config.score
        self.grid = 1 if config.score is None else config.score.hop_frames
        self.num_heads, hidden = config.num_heads, config.hidden
        self.filterbank = KaldiFilterbank(
            config.sample_rate, config.num_mel_bins, WINDOW_MS, HOP_MS, dither=0.0, mean_norm=False
        )
        self.hop_length = self.filterbank.hop_length
        beyond = self.filterbank.window_length - self.hop_length
        self.before, self.after = beyond // 2, beyond - beyond // 2
        self.input = nn.Sequential(nn.Linear(config.num_mel_bins, hidden), nn.LayerNorm(hidden), nn.ReLU())
        directions = 1 if config.causal else 2
        first, second = (
            nn.LSTM(hidden, hidden // directions, batch_first=True, bidirectional=directions == 2) for _ in range(2)
        )
        self.first, self.second = first, second
        self.encoder = build_encoder(config.speaker, config.sample_rate, initialise, None)
        if self.encoder is not None:
            self.config["speaker"] = completed_speaker(self.config["speaker"], self.encoder.config)
            self.joined = nn.Linear(hidden + self.encoder.embedding_dim + (self.score is not None), hidden)
        else:
            # One direction, so that the padding after an enrollment does not reach its frames.
            self.enrolled = nn.LSTM(hidden, hidden, batch_first=True)
            self.query, self.key, self.value, self.voice = (nn.Linear(hidden, hidden) for _ in range(4))
            self.log_temperature = nn.Parameter(torch.tensor(MATCH_TEMPERATURE).log())
            self.matched = nn.Linear(3 * hidden + 1, hidden)
            self.joined = nn.Linear(3 * hidden, hidden)
        self.output = nn.Linear(hidden, NUM_CLASSES)

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames of a recording: one for each 10 ms that it begins."""
        return -(-num_samples // self.hop_length)

    def prepare(self, enrollment: Tensor, lengths: Tensor | None = None) -> PreparedEnrollment:
        """Return the tensors needed of an enrollment `[batch, samples]`, zero-padded to `lengths` `[batch]`."""
        if lengths is None:
            lengths = torch.full((len(enrollment),), enrollment.shape[1], device=enrollment.device)
        if self.encoder is not None:
            return {"embedding": nn.functional.normalize(self.encoder(enrollment, lengths).embedding, dim=-1)}
        num_frames = self.num_frames(enrollment.shape[1])
        mask = length_mask((lengths + self.hop_length - 1) // self.hop_length, num_frames)
        features = self.filterbank(self.padded(enrollment))
        inputs = self.input(features - _level(features, mask))
        frames, _ = self.enrolled(inputs)
        voice = self.voice(_masked_mean(frames, mask)[:, 0])
        return {"inputs": inputs, "frames": frames, "mask": mask, "voice": voice}

    def combine(
        self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None
    ) -> PreparedEnrollment:
        """Combine several enrollments of one voice: vectors are averaged, by weight; frames are joined in time."""
        shares = torch.tensor([1.0] * len(prepared) if weights is None else list(weights))
        combined = {}
        for name in prepared[0]:
            tensors = [each[name] for each in prepared]
            if name in ("inputs", "frames", "mask"):
                combined[name] = torch.cat(tensors, dim=1)
            else:
                stacked = torch.stack(tensors, dim=-1)
                combined[name] = (stacked * (shares / shares.sum()).to(stacked)).sum(dim=-1)
        return combined

    def padded(self, waveform: Tensor) -> Tensor:
        """Pad recordings `[batch, samples]` so that `features` gives one frame for each 10 ms."""
        missing = self.num_frames(waveform.shape[1]) * self.hop_length - waveform.shape[1]
        return nn.functional.pad(waveform, (self.before, missing + self.after))

    def forward(self, mixture: Tensor, prepared: PreparedEnrollment, lengths: Tensor | None = None) -> Tensor:
        """Return the logits `[batch, frames, 3]` of whole recordings `[batch, samples]`, padded to `lengths`."""
        mask = None
        if lengths is not None:
            num_frames = self.num_frames(mixture.shape[1])
            mask = length_mask((lengths + self.hop_length - 1) // self.hop_length, num_frames)
        scores = None if self.score is None else self.scores(mixture, prepared)
        return self.classify(self.padded(mixture), prepared, mask=mask, scores=scores)[0]

    def scores(self, mixture: Tensor, prepared: PreparedEnrollment) -> Tensor:
        """Return the score of each frame, `[batch, frames, 1]`: the cosine of the windows around it and the enrollment.

        Between the middles of two windows the score is interpolated. Equal neighbours in the batch, as one mixture with
        several targets, are embedded once.

        Args:
            mixture: `[batch, samples]`; zeros complete its last window.
            prepared: of `prepare`.
        """
        assert self.score is not None and self.encoder is not None
        num_samples, size = mixture.shape[1], round(self.score.window_s * self.sample_rate)
        hop = self.score.hop_frames * self.hop_length
        count = 1 + max(0, -(-(num_samples - size) // hop))
        is_new = torch.ones(len(mixture), dtype=torch.bool, device=mixture.device)
        is_new[1:] = (mixture[1:] != mixture[:-1]).any(dim=1)
        windows = nn.functional.pad(mixture[is_new], (0, (count - 1) * hop + size - num_samples)).unfold(1, size, hop)
        rows = windows.flatten(0, 1)
        embeddings = self.encoder(rows, torch.full((len(rows),), size, device=rows.device)).embedding
        embeddings = nn.functional.normalize(embeddings, dim=-1).unflatten(0, windows.shape[:2])
        cosines = (embeddings[is_new.cumsum(dim=0) - 1] * prepared["embedding"][:, None]).sum(dim=-1)

        frames = torch.arange(self.num_frames(num_samples), device=mixture.device)
        position = (((frames + 0.5) * self.hop_length - size / 2) / hop).clamp(0, count - 1)
        left = position.long()
        right = (left + 1).clamp_max(count - 1)
        return torch.lerp(cosines[:, left], cosines[:, right], position - left)[..., None]

    def classify(
        self,
        segment: Tensor,
        prepared: PreparedEnrollment,
        state: VADState | None = None,
        mask: Tensor | None = None,
        scores: Tensor | None = None,
    ) -> tuple[Tensor, VADState | None]:
        """Return the logits of the frames that lie in a segment, and the state after it for a causal network.

        A segment has the samples of its frames, and those beyond that the first and the last frame also need:

            | before | frame 0 | frame 1 | … | after |

        Args:
            segment: `[batch, before + frames · hop_length + after]`.
            prepared: of `prepare`.
            state: of the segment before; `None` at the start of a recording.
            mask: `[batch, frames]`, false for padding; `None` if there is none.
            scores: of `scores`, for a network with `score`.
        """
        features = self.filterbank(segment)
        new_state = None
        recurrent: tuple[Any, Any] = (None, None) if state is None else state.recurrent
        if not self.causal:
            features = features - _level(features, mask)
        else:
            before = 0 if state is None else state.count
            total = _power(features).double().cumsum(dim=1) + (0.0 if state is None else state.total)
            counts = torch.arange(1, features.shape[1] + 1, device=features.device) + before
            features = features - (total / counts[:, None]).log().to(features.dtype)
        frames, first = self.first(self._matched(self.input(features), prepared), recurrent[0])
        frames, second = self.second(self._joined(frames, prepared, scores), recurrent[1])
        if self.causal:
            new_state = VADState(before + features.shape[1], total[:, -1:], (first, second))
        return self.output(frames).float(), new_state

    def _matched(self, inputs: Tensor, prepared: PreparedEnrollment) -> Tensor:
        """Join to frames `[batch, frames, hidden]` those of the enrollment that resemble them; the shape stays.

        With an encoder there is nothing to join.
        """
        if self.encoder is not None:
            return inputs
        enrolled, valid = prepared["inputs"].to(inputs.dtype), prepared["mask"].bool()
        query, key = (nn.functional.normalize(full_precision(x), dim=-1) for x in (inputs, enrolled))
        # `cross_attention` divides by the root of the size; the temperature is that of cosines.
        scaled = query * (self.log_temperature.exp() * query.shape[-1] ** 0.5)
        matched = cross_attention(scaled[:, None], key[:, None], key[:, None], valid[:, None, None])[:, 0]
        matched = nn.functional.normalize(matched, dim=-1)
        cosine = (query * matched).sum(dim=-1, keepdim=True)
        return torch.relu(self.matched(torch.cat([inputs, query * matched, query - matched, cosine], dim=-1)))

    def _joined(self, frames: Tensor, prepared: PreparedEnrollment, scores: Tensor | None) -> Tensor:
        """Join the enrollment, and the scores, to frames `[batch, frames, hidden]`; the shape stays."""
        if self.encoder is not None:
            embedding = prepared["embedding"].to(frames.dtype)[:, None].expand(-1, frames.shape[1], -1)
            scored = [] if scores is None else [SCORE_SCALE * scores.to(frames.dtype)]
            return torch.relu(self.joined(torch.cat([frames, embedding, *scored], dim=-1)))
        enrolled = prepared["frames"].to(frames.dtype)
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.query(frames), self.key(enrolled), self.value(enrolled))
        )
        attended = cross_attention(query, key, value, prepared["mask"].bool()[:, None, None])
        context = attended.transpose(1, 2).flatten(2)
        voice = prepared["voice"].to(frames.dtype)[:, None]
        return torch.relu(self.joined(torch.cat([frames, context, frames * voice], dim=-1)))


def target_logits(logits: Tensor) -> Tensor:
    """Return the log odds that the target speaks, `[…, 3]` → `[…]`.

    >>> target_logits(torch.tensor([0.0, 1.0, -30.0])).item()
    1.0
    """
    others = torch.logsumexp(logits[..., [SILENCE, OTHERS]], dim=-1)
    return logits[..., TARGET] - others


def _power(features: Tensor) -> Tensor:
    """Return the mean power of each frame of log-mel features, `[batch, frames, bins]` → `[batch, frames, 1]`."""
    return features.exp().mean(dim=-1, keepdim=True)


def _level(features: Tensor, mask: Tensor | None) -> Tensor:
    """Return the logarithm of the mean power of valid frames, `[batch, 1, 1]`."""
    return _masked_mean(_power(features), mask).clamp_min(torch.finfo(torch.float32).tiny).log()


def _masked_mean(frames: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean `[batch, 1, dim]` of valid frames `[batch, frames, dim]`."""
    if mask is None:
        return frames.mean(dim=1, keepdim=True)
    valid = mask[..., None].to(frames.dtype)
    return (frames * valid).sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True).clamp_min(1)


def is_personal_vad(config: Mapping[str, Any]) -> bool:
    """Return whether the configuration of a checkpoint is that of a personal VAD."""
    return config.get("task") == TASK


def load_personal_vad(path: str | Path) -> PersonalVAD:
    """Return the personal VAD of a checkpoint, in evaluation mode on the CPU.

    Raises:
        CheckpointError: the checkpoint is damaged, of another kind of model, or weights and configuration do not fit.
    """
    saved = checkpoint.load(path)
    if not is_personal_vad(saved.config):
        raise CheckpointError(f"{saved.folder}: is no personal VAD; train one with task: {TASK}")
    try:
        check_numbers(saved.config)
        config = {key: value for key, value in saved.config.items() if key != "task"}
        with no_plugins():
            network = build_within(lambda: PersonalVAD(config, initialise=False), saved.state_dict)
        if problems := checkpoint.weight_mismatches(network.state_dict(), saved.state_dict):
            raise ConfigError(problems[0])
    except ConfigError as error:
        raise CheckpointError(f"{saved.folder}: weights and configuration do not fit ({error})") from error
    network.load_state_dict(saved.state_dict)
    return network.eval()
