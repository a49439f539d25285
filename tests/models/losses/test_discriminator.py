"""The discriminator's shapes, its loss, R1 and LeCAM."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from icl_vision.errors import UsageError
from icl_vision.models.losses.discriminator import (
    Blur,
    Discriminator,
    DiscriminatorConfig,
    LeCam,
    discriminator_gan_loss,
    generator_gan_loss,
    r1_penalty,
)


@pytest.mark.parametrize(
    ("side", "channels", "multipliers"), [(32, 1, (2, 4, 4)), (128, 3, (2, 4, 4, 4, 4)), (256, 3, (1, 1, 1, 1, 1, 1))]
)
def test_shapes(side, channels, multipliers):
    net = Discriminator(DiscriminatorConfig(filters=2, multipliers=multipliers), channels=channels, side=side)
    images = torch.rand(2, channels, side, side)
    logits = net(images)
    assert logits.shape == (2,)
    torch.testing.assert_close(net(images[:1]), logits[:1])  # an image's verdict is its own
    logits.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def test_it_learns_to_tell():
    torch.manual_seed(0)
    net = Discriminator(DiscriminatorConfig(filters=4, multipliers=(1, 1)), channels=1, side=16)
    real, fake = torch.rand(8, 1, 16, 16), torch.rand(8, 1, 16, 16) * 0.5
    for _ in range(30):
        slopes = torch.autograd.grad(discriminator_gan_loss(net(real), net(fake)), list(net.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(net.parameters(), slopes, strict=True):
                parameter -= 0.02 * slope
    assert (net(real) > 0).float().mean() > 0.9 and (net(fake) < 0).float().mean() > 0.9


def test_blur_keeps_a_plain_and_kills_a_checkerboard():
    blur = Blur(2)
    plain = blur(torch.ones(1, 2, 8, 8))
    assert plain.shape == (1, 2, 4, 4)
    torch.testing.assert_close(plain[..., 1:-1, 1:-1], torch.ones(1, 2, 2, 2))
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    assert blur(board.expand(1, 2, 8, 8))[..., 1:-1, 1:-1].abs().max() < 1e-6


def test_losses_are_the_formulas():
    real, fake = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.0])
    torch.testing.assert_close(generator_gan_loss(fake), -torch.log(torch.sigmoid(fake)).mean())
    expected = -(torch.log(torch.sigmoid(real)).mean() + torch.log(1 - torch.sigmoid(fake)).mean())
    torch.testing.assert_close(discriminator_gan_loss(real, fake), expected)


def test_r1_is_the_squared_slope():
    images = torch.rand(3, 1, 4, 4, requires_grad=True)
    weight = torch.rand(1, 4, 4, requires_grad=True)
    penalty = r1_penalty((images * weight).sum((1, 2, 3)), images)
    torch.testing.assert_close(penalty, weight.square().sum())
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * weight.detach())


def test_lecam_follows_the_verdicts():
    lecam = LeCam(0.75)
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 0.0])
    assert lecam(real, fake) == 0  # nothing to hold to yet
    lecam.update(real, fake)
    assert (float(lecam.real), float(lecam.fake)) == (2.0, -0.5)
    wanted = ((1.5**2 + 3.5**2) + (3.0**2 + 2.0**2)) / 2
    assert float(lecam(real, fake)) == pytest.approx(wanted)
    lecam.update(torch.tensor([4.0]), torch.tensor([float("nan")]))
    assert (float(lecam.real), float(lecam.fake)) == (0.75 * 2 + 0.25 * 4, -0.5)  # NaN is left out


def test_lecam_lies_in_the_checkpoint():
    config = DiscriminatorConfig(filters=2, multipliers=(1,))
    first, second = Discriminator(config, side=8), Discriminator(config, side=8)
    first.lecam.update(torch.tensor([1.0]), torch.tensor([2.0]))
    second.load_state_dict(first.state_dict())
    assert (float(second.lecam.real), float(second.lecam.fake), int(second.lecam.updates)) == (1.0, 2.0, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filters": 0}, "filters of the discriminator must be a whole number of 1 or more; got 0"),
        ({"multipliers": ()}, "multipliers of the discriminator must be whole numbers of 1 or more"),
        ({"multipliers": (2, 0)}, r"got \(2, 0\)"),
        ({"lecam_decay": 1.0}, r"lecam_decay must be in \[0, 1\); got 1.0"),
    ],
)
def test_bad_config(settings, message):
    with pytest.raises(UsageError, match=message):
        DiscriminatorConfig(**settings)


def test_images_too_small_for_the_blocks():
    with pytest.raises(UsageError, match="5 multipliers halves 32 px 5 times.* at most 3 multipliers"):
        Discriminator(DiscriminatorConfig(), side=32)
