"""How alike two voices are, by the embeddings of a speaker encoder."""

from __future__ import annotations

import numpy as np

from wesep_py.metrics.errors import MetricError


def speaker_similarity(estimate: np.ndarray, enrollment: np.ndarray) -> float:
    """Cosine of two embeddings, −1 to 1.

    Args:
        estimate: `[dim]`, embedding of the estimate.
        enrollment: `[dim]`, embedding of the enrollment, by the same encoder.

    Raises:
        MetricError: the sizes differ, or an embedding is zero or not finite.

    >>> speaker_similarity(np.array([1.0, 0.0]), np.array([3.0, 4.0]))
    0.6
    """
    first, second = (np.asarray(embedding, dtype=np.float64).ravel() for embedding in (estimate, enrollment))
    if first.shape != second.shape:
        raise MetricError(f"embeddings of {len(first)} and {len(second)} numbers cannot be compared")
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    if not np.isfinite(norms) or norms == 0.0:
        raise MetricError("an embedding is zero or not finite")
    return float(first @ second / norms)
