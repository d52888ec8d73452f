"""From frame-level features of any number of frames to one vector; padding does not count."""

from wesep_py.speaker.pooling.attentive import AttentiveStatisticsPooling, NormalisedAttentivePooling
from wesep_py.speaker.pooling.base import (
    VARIANCE_FLOOR,
    Pooling,
    attentive_statistics,
    build_pooling,
    masked_statistics,
    poolings,
)
from wesep_py.speaker.pooling.multi_head import MultiHeadAttentivePooling, MultiQueryAttentivePooling
from wesep_py.speaker.pooling.recursive import PooledVoices, RecursiveAttentivePooling
from wesep_py.speaker.pooling.statistics import AveragePooling, DeviationPooling, StatisticsPooling
from wesep_py.speaker.pooling.vlad import GhostVLAD, NetVLAD

__all__ = [
    "VARIANCE_FLOOR",
    "AttentiveStatisticsPooling",
    "AveragePooling",
    "DeviationPooling",
    "GhostVLAD",
    "MultiHeadAttentivePooling",
    "MultiQueryAttentivePooling",
    "NetVLAD",
    "NormalisedAttentivePooling",
    "PooledVoices",
    "Pooling",
    "RecursiveAttentivePooling",
    "StatisticsPooling",
    "attentive_statistics",
    "build_pooling",
    "masked_statistics",
    "poolings",
]
