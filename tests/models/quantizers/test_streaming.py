"""The quantizers against a literal transcription of SPAE's equations, loops and all."""

from __future__ import annotations

import copy
import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from icl_vision.errors import PyramidError, UsageError
from icl_vision.models.quantizers.nearest import word_terms
from icl_vision.models.quantizers.streaming import (
    CodebookUsage,
    ResidualQuantizer,
    StreamingAverageQuantizer,
    VectorQuantizer,
    nearest_words,
)
from icl_vision.pyramid import PyramidLayout

DIGITS = PyramidLayout(((1, 1), (2, 2), (4, 4), (4, 4)))
PHOTO = PyramidLayout(((1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (16, 16)))
VIDEO = PyramidLayout(((1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 4, 4)))
ODD = PyramidLayout(((1, 1), (3, 3), (9, 9), (9, 9)))  # layers 1 and 2 share the middle

# Small whole numbers: sums and products are exact in fp32, so a tie is a tie however the product is cut up.
WHOLE = st.integers(-4, 4).map(float)


@st.composite
def layouts(draw: st.DrawFn) -> PyramidLayout:
    """Pyramids of two or three axes, one to four layers, at most 36 positions."""
    axes = draw(st.integers(2, 3))
    layers = draw(st.integers(1, 4))
    sizes = st.sampled_from([(1, 1, 1, 1), (1, 2, 4, 4), (1, 1, 3, 3), (2, 2, 2, 4), (1, 3, 3, 6), (1, 2, 2, 2)])
    columns = [draw(sizes)[4 - layers :] for _ in range(axes)]
    layout = PyramidLayout(tuple(zip(*columns, strict=True)))
    return layout if math.prod(layout.finest) <= 72 else PyramidLayout(((1, 1), (2, 2), (4, 4)))


@st.composite
def cases(draw: st.DrawFn) -> tuple[PyramidLayout, torch.Tensor, torch.Tensor]:
    layout = draw(layouts())
    width, words, batch = draw(st.integers(1, 3)), draw(st.integers(1, 7)), draw(st.integers(1, 2))
    codebook = draw(hnp.arrays(np.float32, (words, width), elements=WHOLE))
    z = draw(hnp.arrays(np.float32, (batch, width, *layout.finest), elements=WHOLE))
    return layout, torch.from_numpy(codebook), torch.from_numpy(z)


def saq_by_loops(layout: PyramidLayout, codebook: np.ndarray, z: np.ndarray, fill: str):
    """Eq. (1)-(3) of SPAE, one position and one word at a time; z [c, *finest]. Positions count from 1, as printed."""
    grids, finest = layout.grids, layout.finest

    def owned(layer: int) -> list[tuple[int, ...]]:  # eq. (1), in raster order
        places = [()]
        for whole, parts in zip(finest, grids[layer - 1], strict=True):
            step = whole // parts
            places = [(*p, step * i - -(-step // 2) + 1) for p in places for i in range(1, parts + 1)]
        return places

    def at(position: tuple[int, ...]) -> np.ndarray:
        return z[(slice(None), *(i - 1 for i in position))].astype(np.float64)

    word = [{} for _ in grids]  # per layer: position -> id
    targets = [{} for _ in grids]
    for layer in range(1, len(grids) + 1):
        for p in owned(layer):
            z_l = at(p)  # eq. (2)
            for i in range(1, layer):
                if p in word[i - 1]:
                    z_l = z_l + (at(p) - codebook[word[i - 1][p]])
            distances = [((z_l - e) ** 2).sum() for e in codebook.astype(np.float64)]
            word[layer - 1][p] = int(np.argmin(distances))
            targets[layer - 1][p] = z_l

    def estimate(p: tuple[int, ...], depth: int) -> np.ndarray | None:  # eq. (3)
        own = [codebook[word[i][p]] for i in range(depth) if p in word[i]]
        return np.mean(own, axis=0) if own else None

    partial = []
    for depth in range(1, len(grids) + 1):
        whole = np.zeros_like(z)
        for index in np.ndindex(*finest):
            p = tuple(i + 1 for i in index)
            value = estimate(p, depth)
            if value is None and fill == "finest":
                for layer in range(depth, 0, -1):  # the finest layer whose cell of this position has an owner
                    steps = [w // g for w, g in zip(finest, grids[layer - 1], strict=True)]
                    cell = [(i - 1) // s for i, s in zip(p, steps, strict=True)]
                    same = [q for q in owned(layer) if [(i - 1) // s for i, s in zip(q, steps, strict=True)] == cell]
                    if same:
                        value = estimate(same[0], depth)
                        break
            if value is not None:
                whole[(slice(None), *index)] = value
        partial.append(whole)
    ids = [np.array([w[p] for p in owned(n)]).reshape(grids[n - 1]) for n, w in enumerate(word, start=1)]
    goals = [
        np.stack([t[p] for p in owned(n)], axis=1).reshape(-1, *grids[n - 1]) for n, t in enumerate(targets, start=1)
    ]
    covered = [{p for w in word[:depth] for p in w} for depth in range(1, len(grids) + 1)]
    commitment = [
        np.mean([(at(p) - estimate(p, depth)) ** 2 for p in places]) for depth, places in enumerate(covered, start=1)
    ]
    return ids, goals, partial, commitment


@settings(max_examples=25, deadline=None)
@given(cases(), st.sampled_from(["finest", "zeros"]))
def test_streaming_average_is_the_paper_s_equations(case, fill):
    layout, codebook, z = case
    quantizer = StreamingAverageQuantizer(codebook, layout, fill=fill)
    for depth in range(1, len(layout) + 1):
        got = quantizer(z, depth)
        assert torch.equal(got.quantized, got.partial[depth - 1])
        torch.testing.assert_close(quantizer.decode_ids(got.ids, depth), got.quantized)
        torch.testing.assert_close(quantizer.decode_ids(got.ids[:depth]), got.quantized)
        torch.testing.assert_close(quantizer.decode_ids(got.ids, torch.tensor(depth)), got.quantized)
    commitments = []
    for image in range(len(z)):
        ids, targets, partial, commitment = saq_by_loops(layout, codebook.numpy(), z[image].numpy(), fill)
        commitments.append(commitment)
        for layer in range(len(layout)):
            np.testing.assert_array_equal(got.ids[layer][image].numpy(), ids[layer])
            np.testing.assert_allclose(got.targets[layer][image].numpy(), targets[layer], atol=1e-5)
            np.testing.assert_allclose(got.partial[layer][image].numpy(), partial[layer], atol=1e-5)
    np.testing.assert_allclose(np.mean(commitments, axis=0), [c.item() for c in got.commitment], rtol=1e-4, atol=1e-5)
    assert got.codebook_loss.item() == 0


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(1, 4), st.booleans())
def test_residual_is_a_loop(case, layers, learned):
    layout, codebook, z = case
    got = ResidualQuantizer(codebook, layout.finest, layers, learned=learned)(z)
    left, total, loss = z.double(), torch.zeros_like(z, dtype=torch.float64), 0.0
    for layer in range(layers):
        torch.testing.assert_close(got.targets[layer].double(), left)
        distances = ((left.movedim(1, -1).unsqueeze(-2) - codebook.double()) ** 2).sum(-1)
        assert torch.equal(got.ids[layer], distances.argmin(-1))
        words = codebook.double()[distances.argmin(-1)].movedim(-1, 1)
        loss += float(((left - words) ** 2).mean())
        left, total = left - words, total + words
        torch.testing.assert_close(got.partial[layer].double(), total)
        torch.testing.assert_close(got.commitment[layer].double(), ((z - total) ** 2).mean())
    assert torch.equal(got.quantized, got.partial[-1])
    assert math.isclose(got.codebook_loss.item(), loss if learned else 0.0, rel_tol=1e-5, abs_tol=1e-6)


def test_each_layer_asks_for_what_brings_the_mean_to_z():
    """What eq. (2) comes to: were the target itself a word, the mean of the position's words would be z."""
    torch.manual_seed(0)
    quantizer = StreamingAverageQuantizer(torch.randn(40, 5), PHOTO)
    z = torch.randn(2, 5, 16, 16)
    got = quantizer(z)
    for layer in range(2, 7):
        index = tuple(map(torch.from_numpy, PHOTO.indices(layer)))
        held = torch.from_numpy(PHOTO.truncate(layer - 1).words_per_position())[index]
        before = quantizer.decode_ids(got.ids[: layer - 1])
        before = torch.where(held > 0, before[(..., *index)], 0.0)
        mean = (held * before + got.targets[layer - 1].flatten(2)) / (held + 1)
        torch.testing.assert_close(mean, z[(..., *index)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", [DIGITS, PHOTO, VIDEO, ODD, PyramidLayout.flat(5)], ids=str)
def test_shapes_and_types(layout):
    quantizer = StreamingAverageQuantizer(torch.randn(11, 3), layout)
    z = torch.randn(2, 3, *layout.finest, dtype=torch.float64, requires_grad=True)
    got = quantizer(z)
    assert got.quantized.shape == z.shape and got.quantized.dtype == torch.float32
    assert [tuple(one.shape[1:]) for one in got.ids] == list(layout.grids)
    assert {one.dtype for one in got.ids} == {torch.int64}
    assert [tuple(one.shape) for one in got.targets] == [(2, 3, *grid) for grid in layout.grids]
    assert all(one.shape == z.shape and not one.requires_grad for one in got.partial)
    assert all(one.shape == () and one.requires_grad for one in got.commitment)
    assert all(one.requires_grad for one in got.targets)
    empty = quantizer.encode_ids(z[:0])
    assert [tuple(one.shape) for one in empty] == [(0, *grid) for grid in layout.grids]


def test_layers_that_share_no_position_are_searched_together():
    def groups(quantizer, **options):
        return tuple(layers for layers, _, _ in quantizer.places.groups(**options))

    photo = StreamingAverageQuantizer(torch.randn(3, 2), PHOTO)
    assert groups(photo) == ((1, 2, 3, 4), (5,), (6,))
    assert groups(photo, apart=True) == tuple((layer,) for layer in range(1, 7))
    assert groups(StreamingAverageQuantizer(torch.randn(3, 2), DIGITS)) == ((1, 2), (3,), (4,))
    assert groups(StreamingAverageQuantizer(torch.randn(3, 2), ODD)) == ((1,), (2,), (3,), (4,))
    assert groups(ResidualQuantizer(torch.randn(3, 2), (2, 2), 3)) == ((1,), (2,), (3,))


# -- gradients


def test_straight_through_is_the_identity_at_full_depth():
    torch.manual_seed(0)
    z = torch.randn(2, 3, 4, 4, requires_grad=True)
    got = StreamingAverageQuantizer(torch.randn(20, 3), DIGITS)(z)
    weight = torch.randn_like(z)
    (got.quantized * weight).sum().backward()
    assert torch.equal(z.grad, weight)


def test_a_hole_s_gradient_goes_to_its_owner_or_nowhere():
    z = torch.randn(1, 1, 4, 4, requires_grad=True)
    expected = {1: torch.zeros(4, 4), 2: torch.zeros(4, 4)}
    expected[1][2, 2] = 16  # eq. (1) counted from 0: layer 1 owns (2, 2), layer 2 owns odd rows and columns
    expected[2][1::2, 1::2] = 4
    expected[2][2, 2] = 1  # has a word of its own already; its cell's owner fills the other two holes
    expected[2][3, 3] = 3
    for depth, want in expected.items():
        quantizer = StreamingAverageQuantizer(torch.randn(9, 1), DIGITS)
        (grad,) = torch.autograd.grad(quantizer(z, depth).quantized.sum(), z)
        assert torch.equal(grad[0, 0], want)
        quantizer = StreamingAverageQuantizer(torch.randn(9, 1), DIGITS, fill="zeros")
        (grad,) = torch.autograd.grad(quantizer(z, depth).quantized.sum(), z)
        assert torch.equal(grad[0, 0], (want > 0).float())


def test_commitment_and_targets_against_finite_differences():
    # Words far apart: no step crosses from one to the next, so ids are constant and the loss is smooth.
    torch.manual_seed(1)
    quantizer = StreamingAverageQuantizer(
        10 * torch.eye(3).repeat(2, 1) * torch.tensor([[1.0]] * 3 + [[-1.0]] * 3), ODD
    )
    z = torch.rand(1, 3, 9, 9) * torch.tensor([1.0, 0.1, 0.1]).view(1, 3, 1, 1) + torch.tensor([6.0, 0, 0]).view(
        3, 1, 1
    )
    for layer in range(4):
        for function in (lambda q, layer=layer: q.commitment[layer], lambda q, layer=layer: q.targets[layer].sum()):
            leaf = z.clone().requires_grad_()
            function(quantizer(leaf)).backward()
            # Each position's gradient is its own, so a few channels of two positions tell.
            for place in [(0, 0, 4, 4), (0, 1, 4, 4), (0, 0, 0, 0)]:
                step = 1e-2
                up, down = z.clone(), z.clone()
                up[place] += step
                down[place] -= step
                slope = (function(quantizer(up)) - function(quantizer(down))) / (2 * step)
                assert abs(float(slope - leaf.grad[place])) < 2e-2 * max(1.0, abs(float(slope)))


def test_learned_codebook_gets_its_gradient_from_the_codebook_loss_alone():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(size=6, dim=2, grid=(3, 3))
    assert quantizer.codebook.abs().max() <= 1 / 6
    assert [name for name, _ in quantizer.named_parameters()] == ["codebook"] == list(quantizer.state_dict())
    z = torch.randn(2, 2, 3, 3, requires_grad=True)
    got = quantizer(z)
    (got.quantized.sum() + sum(got.commitment)).backward()
    assert quantizer.codebook.grad is None
    z.grad = None
    got = quantizer(z)
    got.codebook_loss.backward()
    assert z.grad is None
    expected = torch.zeros_like(quantizer.codebook)
    vectors = quantizer.codebook.detach()[got.ids[0]].movedim(-1, 1)
    difference = 2 * (vectors - z.detach()) / z.numel()
    expected.index_add_(0, got.ids[0].flatten(), difference.movedim(1, -1).reshape(-1, 2))
    torch.testing.assert_close(quantizer.codebook.grad, expected)
    # A step moves the words towards what was asked of them, and the search follows the moved words.
    before = got.codebook_loss.item()
    with torch.no_grad():
        quantizer.codebook -= 2 * quantizer.codebook.grad
    assert quantizer(z).codebook_loss.item() < before


def test_a_frozen_codebook_has_no_gradient_and_is_not_saved():
    quantizer = VectorQuantizer(torch.randn(5, 2), grid=(2, 2))
    assert not list(quantizer.parameters()) and not quantizer.state_dict()
    assert quantizer(torch.randn(1, 2, 2, 2)).codebook_loss.item() == 0


# -- precision


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalise", [False, True])
def test_autocast_changes_nothing(kind, normalise):
    torch.manual_seed(0)
    quantizer = StreamingAverageQuantizer(torch.randn(3000, 16), DIGITS, normalise=normalise)
    z = torch.randn(4, 16, 4, 4)
    plain = quantizer(z)
    with torch.autocast("cpu", dtype=kind):
        cast = quantizer(z)
        again = quantizer.decode_ids(cast.ids)
    for left, right in zip(plain.ids, cast.ids, strict=True):
        assert torch.equal(left, right)
    assert torch.equal(plain.quantized, cast.quantized) and again.dtype == torch.float32
    # Half-precision input is taken at its own value, in fp32.
    low = quantizer(z.to(kind))
    assert low.quantized.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(low.ids, quantizer(z.to(kind).float()).ids, strict=True))


def test_a_module_cast_to_half_searches_its_rounded_words_in_fp32():
    torch.manual_seed(0)
    whole = StreamingAverageQuantizer(torch.randn(300, 8), DIGITS)
    half = copy.deepcopy(whole).half()
    rounded = StreamingAverageQuantizer(whole.codebook.half().float(), DIGITS)
    z = torch.randn(2, 8, 4, 4)
    assert all(torch.equal(a, b) for a, b in zip(half.encode_ids(z), rounded.encode_ids(z), strict=True))


# -- nearest words


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(3)), elements=WHOLE),
    hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=WHOLE),
    st.integers(1, 60),
)
def test_chunks_change_nothing(points, codebook, chunk):
    points, codebook = torch.from_numpy(points), torch.from_numpy(codebook)
    expected = torch.cdist(points.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist")
    found = nearest_words(points, codebook, chunk=chunk)
    assert found.dtype == torch.int64
    assert torch.equal(found, (expected**2).round().argmin(1))  # whole numbers: ties are exact, the lowest id wins
    assert torch.equal(found, nearest_words(points, codebook))
    assert torch.equal(found, nearest_words(points, codebook, terms=word_terms(codebook)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 200))
def test_normalised_search_is_the_largest_cosine(seed, chunk):
    generator = torch.Generator().manual_seed(seed)
    points, codebook = torch.randn(7, 4, generator=generator), torch.randn(40, 4, generator=generator).exp()
    codebook[3] = 0
    cosine = torch.nn.functional.normalize(points.double()) @ torch.nn.functional.normalize(codebook.double()).T
    found = nearest_words(points, codebook, normalise=True, chunk=chunk)
    best = cosine.max(1).values
    # fp32 may take another of two words that are as near as its rounding.
    assert torch.all(best - cosine.gather(1, found[:, None])[:, 0] < 1e-5)


def test_normalised_search_ignores_lengths():
    codebook = torch.tensor([[3.0, 0.1], [0.0, 100.0], [0.4, 0.4]])
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert nearest_words(points, codebook, normalise=True).tolist() == [0, 1, 2]
    assert nearest_words(points, codebook).tolist() == [2, 2, 2]


def test_equal_words_go_to_the_lowest_id_across_chunks():
    codebook = torch.ones(5000, 2)
    codebook[:70] = 9
    assert nearest_words(torch.ones(3, 2), codebook, chunk=64).tolist() == [70] * 3
    assert nearest_words(torch.ones(3, 2), codebook).tolist() == [70] * 3


@pytest.mark.parametrize("normalise", [False, True])
def test_the_traced_search_is_the_same(monkeypatch, normalise):
    """The form that graphs take, cut up over words only; as if traced."""
    points, codebook = torch.randn(50, 6), torch.randn(40_000, 6)
    expected = nearest_words(points, codebook, normalise=normalise)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(nearest_words(points, codebook, normalise=normalise), expected)


@pytest.mark.parametrize(
    ("points", "codebook", "chunk", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(4, 2), None, r"got \[2, 3\] and \[4, 2\]"),
        (torch.zeros(3), torch.zeros(4, 3), None, r"points must be \[N, c\].*got \[3\]"),
        (torch.zeros(2, 3), torch.zeros(0, 3), None, "the codebook has no words"),
        (torch.zeros(2, 3), torch.zeros(4, 3), 0, "chunk, .*, must be a whole number of 1 or more, or None .*; got 0"),
    ],
)
def test_bad_searches(points, codebook, chunk, message):
    with pytest.raises(UsageError, match=message):
        nearest_words(points, codebook, chunk=chunk)


def test_another_codebook_can_be_given():
    torch.manual_seed(0)
    first, second = torch.randn(30, 4), torch.randn(50, 4)
    quantizer, other = StreamingAverageQuantizer(first, DIGITS), StreamingAverageQuantizer(second, DIGITS)
    z = torch.randn(2, 4, 4, 4)
    ids = quantizer.encode_ids(z, second)
    assert all(torch.equal(a, b) for a, b in zip(ids, other.encode_ids(z), strict=True))
    assert torch.equal(quantizer.decode_ids(ids, codebook=second), other.decode_ids(ids))
    with pytest.raises(UsageError, match=r"the codebook must be \[T, 4\]; got \[5, 3\]"):
        quantizer.encode_ids(z, torch.zeros(5, 3))


@pytest.mark.slow
@pytest.mark.parametrize("layout", [DIGITS, PHOTO, VIDEO], ids=str)
def test_exports_with_the_codebook_as_an_input(layout):
    """Ids and vectors of the exported graphs are torch's, at any batch; the depth is an input of the decoder's."""
    pytest.importorskip("onnxscript")
    from icl_vision.exporters.artefact import to_onnx

    ort = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    quantizer = StreamingAverageQuantizer(torch.randn(300, 6), layout).eval()
    names = [f"ids_{layer}" for layer in range(1, len(layout) + 1)]
    batch = {0: torch.export.Dim("batch")}

    class Encode(torch.nn.Module):
        def forward(self, z, codebook):
            return quantizer.encode_ids(z, codebook)

    class Decode(torch.nn.Module):
        def forward(self, depth, codebook, ids):
            return quantizer.decode_ids(ids, depth, codebook)

    def session(module, inputs, outputs, dynamic):
        data = to_onnx(module.eval(), inputs, outputs, dynamic).SerializeToString()
        return ort.InferenceSession(data, providers=["CPUExecutionProvider"])

    z = torch.randn(2, 6, *layout.finest)
    codebook = quantizer.codebook
    encoder = session(Encode(), {"z": z, "codebook": codebook}, names, {"z": batch, "codebook": {}})
    inputs = {"depth": torch.tensor(2), "codebook": codebook, "ids": list(quantizer.encode_ids(z))}
    decoder = session(Decode(), inputs, ["z"], {"depth": {}, "codebook": {}, "ids": [batch] * len(layout)})
    for count in (1, 2, 7):
        z = torch.randn(count, 6, *layout.finest)
        ids = quantizer.encode_ids(z)
        found = encoder.run(None, {"z": z.numpy(), "codebook": codebook.numpy()})
        assert all(np.array_equal(a, b.numpy()) for a, b in zip(found, ids, strict=True))
        for depth in range(1, len(layout) + 1):
            names_in = [one.name for one in decoder.get_inputs()]
            values = [np.array(depth), codebook.numpy(), *(one.numpy() for one in ids)]
            feeds = dict(zip(names_in, values, strict=True))
            np.testing.assert_allclose(decoder.run(None, feeds)[0], quantizer.decode_ids(ids, depth).numpy(), atol=1e-6)


# -- mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebook": torch.zeros(4)}, r"the codebook must be a tensor \[T, c\].*got \[4\]"),
        ({"codebook": np.zeros((4, 2))}, "got ndarray"),
        ({"codebook": torch.zeros(0, 2)}, r"got \[0, 2\]"),
        ({"codebook": torch.full((4, 2), torch.nan)}, "finite floating-point"),
        ({"codebook": torch.zeros(4, 2, dtype=torch.int64)}, "finite floating-point"),
        ({"fill": "nearest"}, "fill must be one of 'finest', 'zeros'; got 'nearest'"),
        ({"chunk": 0}, "chunk, .*, must be a whole number of 1 or more, or None .*; got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UsageError, match=message):
        StreamingAverageQuantizer(**{"codebook": torch.zeros(4, 2), "layout": DIGITS} | options)


def test_bad_plain_and_residual_options():
    with pytest.raises(UsageError, match="give size and dim, both 1 or more; got size=None, dim=3"):
        VectorQuantizer(dim=3, grid=(2, 2))
    with pytest.raises(UsageError, match="means nothing unless learned"):
        VectorQuantizer(size=4, dim=3, grid=(2, 2), learned=False)
    with pytest.raises(UsageError, match="not both"):
        VectorQuantizer(torch.zeros(4, 2), size=4, dim=2, grid=(2, 2))
    with pytest.raises(UsageError, match="layers must be a whole number of 1 or more; got 0"):
        ResidualQuantizer(torch.zeros(4, 2), (2, 2), 0)


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (torch.zeros(1, 2, 4, 5), r"z must be \[B, 2, 4, 4\].*got \[1, 2, 4, 5\]"),
        (torch.zeros(1, 3, 4, 4), r"got \[1, 3, 4, 4\]"),
        (torch.zeros(2, 4, 4), r"got \[2, 4, 4\]"),
        (torch.zeros(1, 2, 4, 4, dtype=torch.int64), "must be floating point; got torch.int64"),
    ],
)
def test_bad_input(z, message):
    quantizer = StreamingAverageQuantizer(torch.zeros(4, 2), DIGITS)
    for function in (quantizer, quantizer.encode_ids):
        with pytest.raises(UsageError, match=message):
            function(z)


def test_bad_depths():
    quantizer = StreamingAverageQuantizer(torch.zeros(4, 2), DIGITS)
    for depth in (0, 5, True, 1.5):
        with pytest.raises(PyramidError, match=f"depth must be a whole number from 1 to 4 layers; got {depth}"):
            quantizer(torch.zeros(1, 2, 4, 4), depth)
    with pytest.raises(PyramidError, match="from 1 to 1 layers; got 2"):
        quantizer.decode_ids([torch.zeros(1, 1, 1, dtype=torch.int32)], 2)


def _ids(*shapes, dtype=torch.int32):
    return [torch.zeros(shape, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "ids must be of 1 to 4 layers, coarse first; got 0"),
        (_ids(*[(1, 1, 1)] * 5), "got 5"),
        (_ids((1, 2, 2)), r"ids of layer 1 must be \[B, 1, 1\].*got \[1, 2, 2\]"),
        (_ids((1, 1, 1), (2, 2, 2)), r"ids of layer 2 must be \[B, 2, 2\], one B for all layers; got \[2, 2, 2\]"),
        (_ids((1, 1, 1), dtype=torch.float32), "must be whole numbers; got torch.float32"),
        ([torch.full((1, 1, 1), 4)], "ids of layer 1 must be 0 to 3; got 4"),
        ([torch.full((1, 1, 1), -1)], "must be 0 to 3; got -1"),
    ],
)
def test_bad_ids(ids, message):
    with pytest.raises(PyramidError, match=message):
        StreamingAverageQuantizer(torch.zeros(4, 2), DIGITS).decode_ids(ids)


# -- usage


def test_usage():
    usage = CodebookUsage(8)
    assert usage.perplexity == 0 and usage.usage == 0 and usage.total == 0
    usage.update([torch.tensor([[0, 1], [2, 3]], dtype=torch.int32), torch.tensor([0, 1, 2, 3])])
    usage.update(torch.zeros(0, 3, dtype=torch.int64))
    usage.update([])
    assert usage.usage == 0.5 and usage.perplexity == pytest.approx(4.0) and usage.dead.tolist() == [4, 5, 6, 7]
    other = CodebookUsage(8)
    other.update(torch.full((100_000,), 7))
    usage.merge(other)
    assert 1 < usage.perplexity < 1.01 and usage.dead.tolist() == [4, 5, 6]
    assert usage.to_dict() == {
        "words": 8, "total": 100_008, "used": 5, "usage": 0.625, "dead": 3, "perplexity": usage.perplexity
    }  # fmt: skip
    usage.reset()
    assert usage.total == 0 and len(usage.dead) == 8


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_perplexity_is_exp_of_the_entropy(ids):
    usage = CodebookUsage(10)
    usage.update(torch.tensor(ids))
    shares = np.bincount(ids) / len(ids)
    entropy = -sum(p * math.log(p) for p in shares if p > 0)
    assert usage.perplexity == pytest.approx(math.exp(entropy))
    assert 1 <= usage.perplexity * (1 + 1e-12) and usage.perplexity <= len(set(ids)) * (1 + 1e-12)


def test_bad_usage():
    for words in (0, True, 2.0):
        with pytest.raises(UsageError, match=f"must be a whole number of 1 or more; got {words}"):
            CodebookUsage(words)
    usage = CodebookUsage(3)
    for ids, message in [([3], "must be 0 to 2; got 3"), ([-1], "got -1"), ([0.5], "whole numbers; got torch.float32")]:
        with pytest.raises(UsageError, match=message):
            usage.update(torch.tensor(ids))
    assert usage.total == 0
    with pytest.raises(UsageError, match="usages of 3 and 4 words cannot be added"):
        usage.merge(CodebookUsage(4))
