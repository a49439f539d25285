"""The semantic loss against a literal transcription of eq. (4) to (7), and how the parts of eq. (8) and (9) add up."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from icl_vision.errors import UsageError
from icl_vision.models.losses import semantic
from icl_vision.models.losses.discriminator import Discriminator, DiscriminatorConfig
from icl_vision.models.losses.semantic import SemanticOptions, semantic_loss
from icl_vision.models.losses.spae import LossConfig, SpaeLoss

SMALL = DiscriminatorConfig(filters=4, multipliers=(1, 2), lecam_decay=0.5)
PLAIN = LossConfig(perceptual=0, gan=0, semantic=0)


# Semantic loss --------------------------------------------------------------------------------------------------------


def literal(targets, similarity, codebook, options, drawn=None):
    """Eq. (4), (6) and (7) word by word; ``drawn[l][b][i]`` are the sampled words, None takes the pool's mean."""
    layers = []
    for number, (z, rho) in enumerate(zip(targets, options.thresholds, strict=False)):
        terms = []
        for image in range(len(z)):
            raw = [float(value) for value in similarity[image]]
            low, high = min(raw), max(raw)
            pool = [k for k, value in enumerate(raw) if high == low or (value - low) / (high - low) >= rho]
            for i, point in enumerate(z[image].flatten(1).T):
                distances = torch.stack([((point - word) ** 2).sum() for word in codebook])
                logs = torch.log_softmax(-distances / options.temperature, 0)
                chosen = pool if drawn is None else [drawn[number][image][i]]
                terms.append(-torch.stack([logs[k] for k in chosen]).mean())
        layers.append(torch.stack(terms).mean())
    return torch.stack(layers).mean(), layers


def example(seed, grids=((1, 1), (2, 2), (2, 3)), batch=2, words=11, width=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    targets = [torch.randn(batch, width, *grid, generator=generator, dtype=dtype).requires_grad_() for grid in grids]
    codebook = torch.randn(words, width, generator=generator, dtype=dtype)
    similarity = torch.randn(batch, words, generator=generator)
    return targets, similarity, codebook


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), temperature=st.sampled_from([0.05, 1.0, 3.0]), chunk=st.sampled_from([1, 30, 1000]))
def test_expected_targets_are_the_literal_equations(seed, temperature, chunk):
    targets, similarity, codebook = example(seed)
    options = SemanticOptions((0.9, 0.5, 0.2), "expected", temperature)
    wanted, wanted_layers = literal(targets, similarity, codebook, options)
    gradients = torch.autograd.grad(wanted, targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic, "CPU_CHUNK", chunk)
        found = semantic_loss(targets, similarity, codebook, options)
    torch.testing.assert_close(found.total, wanted)
    torch.testing.assert_close(torch.stack(found.layers), torch.stack(wanted_layers))
    for ours, theirs in zip(torch.autograd.grad(found.total, targets), gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_sampled_targets_are_the_literal_equations(monkeypatch):
    targets, similarity, codebook = example(3)
    options = SemanticOptions((0.9, 0.5, 0.2), "sampled", 0.7)
    drawn = []

    def spy(*arguments, original=torch.multinomial, **named):
        drawn.append(original(*arguments, **named))
        return drawn[-1]

    monkeypatch.setattr(torch, "multinomial", spy)
    found = semantic_loss(targets, similarity, codebook, options, generator=torch.Generator().manual_seed(5))
    wanted, _ = literal(targets, similarity, codebook, options, [layer.tolist() for layer in drawn])
    torch.testing.assert_close(found.total, wanted)
    for ours, theirs in zip(
        torch.autograd.grad(found.total, targets), torch.autograd.grad(wanted, targets), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_gradients_against_finite_differences():
    (target,), similarity, codebook = example(1, grids=((2, 2),))
    options = SemanticOptions((0.5,), "expected", 0.5)
    assert torch.autograd.gradcheck(lambda z: semantic_loss([z], similarity, codebook, options).total, (target,))


def test_sampling_stays_in_the_pool_and_repeats_with_its_seed():
    _, similarity, codebook = example(2)
    pool = semantic.candidate_pool(semantic.normalise_similarity(similarity), 0.4)
    anchors = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(9)
        vectors, squares = semantic._anchors(pool, codebook, 200, "sampled", generator)
        anchors.append(vectors)
        words = torch.cdist(vectors.flatten(0, 1), codebook).argmin(1).view(len(pool), 200)
        for image, row in enumerate(words):
            assert set(row.tolist()) == set(pool[image].nonzero().flatten().tolist())
        torch.testing.assert_close(squares, codebook.square().sum(1)[words])
    assert torch.equal(*anchors)
    mean, _ = semantic._anchors(pool, codebook, 200, "expected", None)
    torch.testing.assert_close(mean.squeeze(1), torch.stack([codebook[row].mean(0) for row in pool]))


def test_the_best_word_always_passes_and_only_it_at_one():
    similarity = torch.tensor([[0.1, 0.3, 0.2], [-1e8, -3e8, -2e8], [1e-20, 2e-20, 3e-20]])
    pool = semantic.candidate_pool(semantic.normalise_similarity(similarity), 1.0)
    assert pool.nonzero().tolist() == [[0, 1], [1, 0], [2, 2]]
    ties = semantic.normalise_similarity(torch.full((1, 4), 0.25))
    assert torch.equal(ties, torch.ones(1, 4))


def test_a_subset_of_positions_and_few_layers():
    targets, similarity, codebook = example(4)
    two = semantic_loss(targets, similarity, codebook, SemanticOptions((0.5, 0.5), "expected"))
    assert len(two.layers) == 2
    one = semantic_loss(targets[:1], similarity, codebook, SemanticOptions((0.5, 0.5), "expected"))
    assert len(one.layers) == 1
    few = SemanticOptions((0.5, 0.5, 0.5), "expected", positions=2)
    loss = semantic_loss(targets, similarity, codebook, few, generator=torch.Generator().manual_seed(0))
    slope = torch.autograd.grad(loss.total, targets)[2]
    assert int((slope[0].abs().sum(0) > 0).sum()) == 2


def test_bf16_autocast_does_not_reach_it():
    targets, similarity, codebook = example(5, dtype=torch.float32)
    options = SemanticOptions((0.9, 0.5, 0.2), "expected", 0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = semantic_loss(targets, similarity, codebook, options).total
    assert torch.equal(inside, semantic_loss(targets, similarity, codebook, options).total)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"similarity": torch.full((2, 11), math.nan)}, "similarities hold NaN or infinity"),
        ({"similarity": torch.zeros(2, 10)}, r"similarity must be \[B, 11\].*got \[2, 10\]"),
        ({"targets": []}, "needs the targets of at least one layer"),
        (
            {"targets": [torch.zeros(2, 5, 1, 1)]},
            r"targets of layer 1 must be \[2, 4, \.\.\.grid\]; got \[2, 5, 1, 1\]",
        ),
    ],
)
def test_bad_shapes(change, message):
    targets, similarity, codebook = example(0)
    given = {"targets": targets, "similarity": similarity, "codebook": codebook} | change
    with pytest.raises(UsageError, match=message):
        semantic_loss(**given, options=SemanticOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": ()}, "thresholds must be one or more numbers"),
        ({"thresholds": (1.2,)}, r"in \[0, 1\]"),
        ({"targets": "best"}, "targets must be one of sampled, expected; got 'best'"),
        ({"temperature": 0.0}, "temperature must be a number above 0; got 0.0"),
        ({"positions": -1}, "positions must be a whole number of 0 or more; got -1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UsageError, match=message):
        SemanticOptions(**options)


# The whole loss -------------------------------------------------------------------------------------------------------


class FakeGuide:
    def __init__(self, words):
        self.words = words
        self.labels = None

    def similarity(self, images, *, labels=None):
        self.labels = labels
        return torch.arange(len(images) * self.words).reshape(len(images), -1).float().sin()


class Distance(torch.nn.Module):
    def forward(self, a, b):
        return (a - b).abs().mean((1, 2, 3))


def made(seed=0, batch=3, side=16):
    """Images, and an output as a model gives it, with gradient from z on."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, 1, side, side, generator=generator)
    z = torch.randn(batch, 4, 2, 2, generator=generator, requires_grad=True)
    decoder = torch.nn.Linear(16, side * side)
    reconstruction = decoder(z.flatten(1)).view(batch, 1, side, side)
    quantized = SimpleNamespace(
        targets=(z.mean((2, 3), keepdim=True), z),
        commitment=(z.square().mean(), (z - 1).square().mean()),
        codebook_loss=torch.tensor(0.25),
    )
    return images, SimpleNamespace(reconstruction=reconstruction, z=z, quantized=quantized, target=None), z, decoder


@pytest.fixture
def codebook():
    return torch.randn(9, 4, generator=torch.Generator().manual_seed(7))


def test_parts_add_up_to_equations_8_and_9(codebook):
    images, output, *_ = made()
    config = LossConfig(
        commitment=0.5, codebook=2.0, gan=0.3, perceptual=0.7, semantic=1.5, discriminator=SMALL, targets="expected"
    )
    discriminator = Discriminator(SMALL, channels=1, side=16)
    guide = FakeGuide(9)
    report = SpaeLoss(config, codebook, guide, Distance(), discriminator).generator(
        images, output, step=0, labels=torch.tensor([1, 2, 3])
    )
    parts = report.parts
    difference = output.reconstruction - images
    assert torch.equal(guide.labels, torch.tensor([1, 2, 3]))
    torch.testing.assert_close(parts["pixel"], difference.square().mean())
    torch.testing.assert_close(parts["commitment"], sum(output.quantized.commitment))
    torch.testing.assert_close(parts["perceptual"], difference.abs().mean())
    logits = discriminator(output.reconstruction)
    torch.testing.assert_close(parts["gan"], -torch.log(torch.sigmoid(logits)).mean())
    appearance = parts["pixel"] + 0.5 * parts["commitment"] + 2 * 0.25 + 0.3 * parts["gan"] + 0.7 * parts["perceptual"]
    torch.testing.assert_close(parts["appearance"], appearance)
    torch.testing.assert_close(parts["semantic_weight"], appearance / parts["semantic"])
    torch.testing.assert_close(report.total, appearance * (1 + 1.5))  # w makes the two losses equal
    torch.testing.assert_close(parts["semantic"], (parts["semantic_1"] + parts["semantic_2"]) / 2)
    assert not any(part.requires_grad for part in parts.values())


def test_the_dynamic_weight_has_no_gradient(codebook):
    images, output, z, _ = made()
    config = replace(PLAIN, semantic=1.0, targets="expected")
    report = SpaeLoss(config, codebook, FakeGuide(9)).generator(images, output, step=0)
    slope = torch.autograd.grad(report.total, z, retain_graph=True)[0]
    options = config.semantic_options
    semantic_part = semantic_loss(output.quantized.targets, FakeGuide(9).similarity(images), codebook, options).total
    appearance = SpaeLoss(PLAIN, codebook).generator(images, output, step=0).total
    expected = torch.autograd.grad(appearance, z, retain_graph=True)[0]
    expected = expected + (appearance / semantic_part).detach() * torch.autograd.grad(semantic_part, z)[0]
    torch.testing.assert_close(slope, expected)


def test_every_part_can_be_switched_off(codebook):
    images, output, *_ = made()
    off = LossConfig(pixel=0, commitment=0, codebook=0, gan=0, perceptual=0, semantic=0)
    report = SpaeLoss(off, codebook).generator(images, output, step=0)
    assert report.total == 0 and set(report.parts) == {"appearance"}
    for name in ("pixel", "commitment", "codebook"):
        report = SpaeLoss(replace(off, **{name: 2.0}), codebook).generator(images, output, step=0)
        assert set(report.parts) == {name, "appearance"}
        torch.testing.assert_close(report.total, 2 * report.parts[name])
    plain = SpaeLoss(replace(PLAIN, semantic=1.0, dynamic_weight=False), codebook, FakeGuide(9))
    assert plain.generator(images, output, step=0).parts["semantic_weight"] == 1


def test_a_vanishing_or_broken_loss(codebook):
    images, output, *_ = made()
    loss = SpaeLoss(replace(PLAIN, semantic=1.0, dynamic_weight_max=10.0), codebook, FakeGuide(9))
    assert loss._dynamic_weight(torch.tensor(3.0), torch.tensor(0.0)) == 10
    output.reconstruction = output.reconstruction * math.nan
    assert loss.generator(images, output, step=0).total.isnan()  # seen by the loop, not papered over


def test_a_model_trained_on_latents_is_compared_with_its_own_target(codebook):
    images, output, _, _ = made()
    output.target = torch.zeros_like(output.reconstruction)
    report = SpaeLoss(PLAIN, codebook).generator(images, output, step=0, shallow=(output.target,))
    assert torch.isclose(report.parts["pixel"], output.reconstruction.detach().square().mean())
    assert report.parts["shallow"] == 0


def test_shallow_reconstructions(codebook):
    images, output, *_ = made()
    config = replace(PLAIN, perceptual=0.5, shallow=3.0)
    loss = SpaeLoss(config, codebook, perceptual=Distance())
    others = [torch.zeros_like(images), torch.ones_like(images)]
    report = loss.generator(images, output, step=0, shallow=others)
    wanted = sum(((one - images) ** 2).mean() + 0.5 * (one - images).abs().mean() for one in others) / 2
    torch.testing.assert_close(report.parts["shallow"], wanted)
    alone = loss.generator(images, output, step=0)
    assert "shallow" not in alone.parts
    torch.testing.assert_close(report.total, alone.total + 3 * wanted)


def test_sampled_words_depend_on_seed_and_step_alone(codebook):
    images, output, *_ = made()
    config = replace(PLAIN, semantic=1.0, thresholds=(0.1, 0.1))

    def value(seed, step):
        return float(
            SpaeLoss(replace(config, seed=seed), codebook, FakeGuide(9))
            .generator(images, output, step=step)
            .parts["semantic"]
        )

    assert value(0, 5) == value(0, 5)
    assert len({value(0, 5), value(0, 6), value(1, 5)}) == 3


def test_the_discriminator_and_the_model_train_apart(codebook):
    images, output, z, decoder = made()
    config = replace(PLAIN, gan=0.1, gan_start=10, r1=0.5, lecam=0.2, discriminator=SMALL)
    discriminator = Discriminator(SMALL, channels=1, side=16)
    loss = SpaeLoss(config, codebook, discriminator=discriminator)
    assert not loss.adversarial(9) and loss.adversarial(10)
    assert "gan" not in loss.generator(images, output, step=9).parts
    loss.generator(images, output, step=10).total.backward(retain_graph=True)
    assert decoder.weight.grad is not None and z.grad is not None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in discriminator.parameters())
    decoder.zero_grad()
    z.grad = None
    report = loss.discriminator_loss(images, output)
    report.total.backward()
    assert decoder.weight.grad is None and z.grad is None
    assert all(parameter.grad is not None for parameter in discriminator.parameters())
    parts = report.parts
    assert set(parts) == {"discriminator", "lecam", "r1", "real", "fake"} and parts["lecam"] == 0
    torch.testing.assert_close(report.total, parts["discriminator"] + 0.5 * parts["r1"])
    torch.testing.assert_close(discriminator.lecam.real, parts["real"])
    discriminator.lecam.fake.fill_(-100.0)
    again = loss.discriminator_loss(images, output)
    assert again.parts["lecam"] > 1
    torch.testing.assert_close(
        again.total, again.parts["discriminator"] + 0.5 * parts["r1"] + 0.2 * again.parts["lecam"]
    )


def test_a_wrapped_discriminator(codebook):
    images, output, *_ = made()

    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x)

    config = replace(PLAIN, gan=0.1, discriminator=SMALL)
    inner = Discriminator(SMALL, channels=1, side=16)
    bare, wrapped = (SpaeLoss(config, codebook, discriminator=net) for net in (inner, Wrapper(inner)))
    torch.testing.assert_close(
        wrapped.generator(images, output, step=0).total, bare.generator(images, output, step=0).total
    )
    assert wrapped.discriminator_loss(images, output).parts["real"].isfinite()
    with pytest.raises(UsageError, match="must be a Discriminator, wrapped or not; got Distance"):
        SpaeLoss(config, codebook, discriminator=Distance()).generator(images, output, step=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("semantic", "semantic=1.0 needs a guide"),
        ("perceptual", "perceptual=1.0 needs LPIPS"),
        ("gan", "gan=1.0 needs a discriminator"),
    ],
)
def test_a_part_without_its_module(codebook, name, message):
    with pytest.raises(UsageError, match=message):
        SpaeLoss(replace(PLAIN, **{name: 1.0}), codebook)


def test_no_discriminator(codebook):
    images, output, *_ = made()
    with pytest.raises(UsageError, match="discriminator_loss needs a discriminator"):
        SpaeLoss(PLAIN, codebook).discriminator_loss(images, output)


# Config ---------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_papers():
    config = LossConfig()
    assert (config.semantic, config.commitment, config.gan, config.perceptual, config.lecam) == (
        1,
        0.33,
        0.1,
        0.1,
        1e-4,
    )
    assert config.thresholds == (0.98, 0.95, 0.9, 0.85, 0.8) and config.temperature == 1 and config.dynamic_weight
    assert config.needs_guide and config.needs_perceptual and config.needs_discriminator


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gan": -1}, "the loss weight gan must be a number of 0 or more; got -1"),
        ({"pixel": "1"}, "pixel must be a number; got '1'"),
        ({"semantic": math.nan}, "the loss weight semantic must be a number of 0 or more; got nan"),
        ({"gan_start": 1.5}, "gan_start must be a whole number; got 1.5"),
        ({"thresholds": ()}, "thresholds must be one or more numbers"),
        ({"targets": "mean"}, "targets must be one of sampled, expected; got 'mean'"),
    ],
)
def test_bad_config(settings, message):
    with pytest.raises(UsageError, match=message):
        LossConfig(**settings)
