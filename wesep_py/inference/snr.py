"""How noisy an enrollment is: SNR and clipping, from the recording alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

GAMMA_SHAPE = 0.4
SNR_RANGE_DB = (-10.0, 40.0)
"""What the estimate is limited to: beyond, the statistic hardly changes."""
# Pauses longer than twice this are left out: the model of speech has only the short ones.
MARGIN_S = 0.3
# Flat tops: at least so many samples in a row alike, within 1 % of the peak.
FLAT_SAMPLES = 3
NEAR_PEAK = 0.99
FULL_SCALE = 32767 / 32768


def estimate_snr_db(waveform: NDArray[np.float32], mask: NDArray[np.bool_], sample_rate: int) -> float | None:
    """WADA-SNR: speech's amplitudes have a Gamma distribution of shape 0.4, noise's a normal one; their sum tells.

    `ln E|x| − E ln|x|` grows with the SNR whatever the level, so it is looked up among the values that the two
    distributions give (Kim & Stern, "Robust signal-to-noise ratio estimation based on waveform amplitude distribution
    analysis", Interspeech 2008). Pauses longer than 0.6 s are left out. Other steady noise than white does; a second
    voice is speech, and does not count as noise. Above about 20 dB it says little more than "clean".

    Args:
        waveform: `[samples]`.
        mask: `[samples]`, true where somebody speaks.
        sample_rate: in Hz.

    Returns:
        dB from −10 to 40; `None` where nobody speaks.
    """
    heard = np.abs(waveform[_widened(mask, round(MARGIN_S * sample_rate))].astype(np.float64))
    heard = heard[heard > 0]
    if len(heard) == 0:
        return None
    levels, statistics = wada_table()
    return float(np.interp(np.log(heard.mean()) - np.log(heard).mean(), statistics, levels))


@lru_cache(maxsize=1)
def wada_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """SNRs in dB, and `ln E|x| − E ln|x|` of Gamma-distributed speech in normal noise at each.

    For x = s + n with normal n of variance 1 and given s, `E|x|^a = 2^(a/2) Γ((1+a)/2) / √π · ₁F₁(−a/2; ½; −s²/2)`;
    its derivative at a = 0 is `E ln|x|`. The mean over s is taken at the midpoints of equal shares of its distribution.
    """
    from scipy.special import gamma, gammaincinv, hyp1f1

    levels = np.arange(SNR_RANGE_DB[0], SNR_RANGE_DB[1] + 1, 2)
    share = (np.arange(200) + 0.5) / 200
    speech = gammaincinv(GAMMA_SHAPE, share) / np.sqrt(GAMMA_SHAPE * (GAMMA_SHAPE + 1))
    scaled = speech * 10 ** (levels[:, None] / 20)

    def moment(order: float) -> NDArray[np.float64]:
        """`E|x|^order` of each; far above the noise it is that of the speech."""
        far = scaled > 30
        near = np.where(far, 0.0, scaled)
        value = 2 ** (order / 2) * gamma((1 + order) / 2) / np.sqrt(np.pi) * hyp1f1(-order / 2, 0.5, -(near**2) / 2)
        return np.where(far, scaled**order, value).mean(axis=1)

    step = 1e-3
    return levels, np.log(moment(1.0)) - (moment(step) - moment(-step)) / (2 * step)


def clipped_share(waveform: NDArray[np.float32]) -> float:
    """The share (0 to 1) of samples at full scale or in flat tops.

    Flat tops are three or more samples in a row of one value within 1 % of the highest or the lowest: what is left of
    clipping when the level was changed afterwards. Lossy coding rounds flat tops off; then full scale only is found.

    Args:
        waveform: `[samples]`, as it was recorded: not resampled.

    >>> sine = np.sin(np.arange(1000) / 10)
    >>> clipped_share(0.9 * sine), clipped_share(0.5 * np.clip(sine, -0.5, 0.5)) > 0.6
    (0.0, True)
    """
    if len(waveform) == 0:
        return 0.0
    clipped = np.abs(waveform) >= FULL_SCALE
    clipped[1:-1] &= clipped[:-2] | clipped[2:]  # one sample alone at full scale is a peak
    ends = np.flatnonzero(np.diff(waveform, append=np.nan) != 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    highest, lowest = float(waveform.max()), float(waveform.min())
    lengths, values = ends - starts + 1, waveform[starts]
    extreme = ((values > 0) & (values >= NEAR_PEAK * highest)) | ((values < 0) & (values <= NEAR_PEAK * lowest))
    clipped |= np.repeat((lengths >= FLAT_SAMPLES) & extreme, lengths)
    return float(clipped.mean())


def _widened(mask: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """True wherever the mask is true at most `margin` samples away."""
    count = np.concatenate([[0], np.cumsum(mask)])
    at = np.arange(len(mask))
    return count[np.minimum(at + margin + 1, len(mask))] > count[np.maximum(at - margin, 0)]
