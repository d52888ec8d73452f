"""Fusion operators: their formulas along any axis, the points at which they act, and means of embeddings."""

from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.cues.fusion import FusionPoints, fusions, mean_embedding, resolve_points


@pytest.mark.parametrize("name", fusions.names())
@pytest.mark.parametrize(("shape", "axis"), [((2, 6, 5), 1), ((2, 5, 6), -1), ((2, 3, 6, 5), 2), ((2, 3, 4, 6), -1)])
def test_every_operator_works_along_every_axis(name, shape, axis):
    torch.manual_seed(0)
    size = {"scale": 6, "affine": 12}.get(name, 7)
    operator = fusions.get(name)(size, 6, axis)
    for parameter in operator.parameters():
        torch.nn.init.normal_(parameter)
    features, embedding = torch.randn(shape), torch.randn(2, size)
    fused = operator(features, embedding)
    assert fused.shape == features.shape
    # For each element beside the fused axis, the result is the operator on plain vectors.
    vectors = features.movedim(axis, -1).reshape(2, -1, 6)
    by_hand = torch.stack([operator.fuse(vectors[:, i], embedding) for i in range(vectors.shape[1])], dim=1)
    torch.testing.assert_close(fused.movedim(axis, -1).reshape(2, -1, 6), by_hand)


def test_operators_equal_their_formulas():
    h, e = torch.randn(2, 3, 6), torch.randn(2, 4)
    add, multiply, concat, film = (fusions.get(n)(4, 6, -1) for n in ("add", "multiply", "concat", "film"))
    projected = (e @ add.linear.weight.T + add.linear.bias)[:, None]
    torch.testing.assert_close(add(h, e), h + projected)
    torch.testing.assert_close(multiply(h, e), h * multiply.linear(e)[:, None])
    joined = torch.cat([e[:, None].expand(2, 3, 4), h], dim=-1)
    torch.testing.assert_close(concat(h, e), concat.linear(joined))
    torch.testing.assert_close(film(h, e), h)  # starts at zero: nothing is changed
    torch.nn.init.ones_(film.scale.bias)
    torch.testing.assert_close(film(h, e), 2 * h)


def test_operators_without_a_layer_use_the_embedding_itself():
    h, e = torch.randn(2, 3, 6), torch.randn(2, 12)
    torch.testing.assert_close(fusions.get("scale")(6, 6, -1)(h, e[:, :6]), h * e[:, None, :6])
    torch.testing.assert_close(fusions.get("affine")(12, 6, -1)(h, e), h * e[:, None, :6] + e[:, None, 6:])
    for name, needed in (("scale", 6), ("affine", 12)):
        with pytest.raises(ValueError, match=f"needs an embedding of {needed} numbers; it is given 7"):
            fusions.get(name)(7, 6, -1)


def test_an_embedding_may_vary_over_time():
    operator = fusions.get("add")(4, 6, 1)
    features, embedding = torch.randn(2, 6, 5), torch.randn(2, 4, 5)
    fused = operator(features, embedding)
    for t in range(5):
        torch.testing.assert_close(fused[:, :, t], operator.fuse(features[:, :, t], embedding[:, :, t]))


@pytest.mark.parametrize(
    ("points", "shared", "layers", "where"),
    [
        ("first", False, 1, [0]),
        ("all", False, 3, [0, 1, 2]),
        ("all", True, 1, [0, 1, 2]),
        ([2, 0], False, 2, [0, 2]),
    ],
)
def test_only_the_selected_points_are_fused(points, shared, layers, where):
    at = FusionPoints("add", 4, 6, -1, 3, points, shared)
    assert len(at.layers) == layers
    h, e = torch.randn(1, 2, 6), torch.randn(1, 4)
    assert [p for p in range(3) if not torch.equal(at(p, h, e), h)] == where


def test_unknown_points_and_operators_are_refused():
    with pytest.raises(ValueError, match="indices from 0 to 2"):
        resolve_points([3], 3)
    with pytest.raises(ConfigError, match="did you mean 'film'"):
        FusionPoints("flim", 4, 6, -1, 3)


def test_the_mean_of_one_embedding_is_itself():
    e = torch.randn(2, 5)
    torch.testing.assert_close(mean_embedding([e]), e)
    torch.testing.assert_close(mean_embedding([e, e]), e)
