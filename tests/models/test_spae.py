"""SPAE: its nets, its config, the line from image to words and back."""

import dataclasses
import json

import pytest
import torch
from torch import Tensor, nn

from icl_vision.errors import ArtefactNotFoundError, PyramidError, UsageError
from icl_vision.models.nets.blocks import MixerBlock, ResBlock, group_norm
from icl_vision.models.nets.spae_photo import FROZEN_CHANNELS, PhotoDecoder, PhotoEncoder
from icl_vision.models.spae import SPAE, SpaeConfig, build_nets

DIGITS = SpaeConfig(
    net="patches", side=32, channels=1, grids=(1, 2, 4, 4), dim=16, standardise=True, width=16, blocks=1
)
CNN = SpaeConfig(side=16, grids=(1, 2, 4), dim=8, filters=8, multipliers=(1, 2, 2), blocks=1)
PHOTO = SpaeConfig(net="photo", side=32, grids=(1, 2, 4), dim=8, width=16, blocks=1)
REGIONS = SpaeConfig(
    net="photo", side=32, grids=(1, 2, 4), dim=8, width=16, blocks=1, quantizer="projected", projection=6,
    region_layers=2, thaw=True,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def words(config: SpaeConfig, count: int = 24) -> Tensor:
    """Unit vectors in a narrow cone, as sentence embeddings are."""
    return nn.functional.normalize(torch.randn(count, config.dim) + 1.0, dim=1)


def pictures(config: SpaeConfig, count: int = 3) -> Tensor:
    return torch.rand(count, config.channels, config.side, config.side)


def parameters(*nets: nn.Module) -> int:
    return sum(one.numel() for net in nets for one in net.parameters())


# -- sizes


@pytest.mark.parametrize(("side", "grids"), [(128, (1, 2, 4, 8, 16, 16)), (256, (1, 2, 4, 8, 16, 32, 32))])
def test_the_papers_image_model_has_59_million_parameters(side: int, grids: tuple[int, ...]) -> None:
    config = SpaeConfig(side=side, grids=grids)
    with torch.device("meta"):
        encoder, decoder = build_nets(config)
        vectors = encoder(pictures(config, 1))
        images = decoder(vectors)
    assert parameters(encoder, decoder) == 59_397_123
    assert vectors.shape == (1, 1536, side // 8, side // 8)
    assert images.shape == (1, 3, side, side)


def test_the_papers_words() -> None:
    assert SpaeConfig().layout.cumulative == (1, 5, 21, 85, 341, 597)


@pytest.mark.parametrize(("channels", "groups"), [(512, 32), (128, 32), (64, 16), (40, 10), (7, 1)])
def test_group_norm_takes_any_width(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_blocks_keep_the_grid() -> None:
    assert ResBlock(8, 16)(torch.rand(2, 8, 5, 5)).shape == (2, 16, 5, 5)
    assert MixerBlock(8, 9)(torch.rand(2, 9, 8)).shape == (2, 9, 8)


# -- the line


@pytest.mark.parametrize("config", [DIGITS, CNN, PHOTO], ids=lambda config: config.net)
def test_forward_has_the_shapes_it_says(config: SpaeConfig) -> None:
    model, images = SPAE(config, words(config)), pictures(config)
    output = model(images)
    assert output.reconstruction.shape == images.shape
    assert output.z.shape == (3, config.dim, *config.layout.finest)
    assert output.quantized.quantized.shape == output.z.shape
    assert [tuple(layer.shape[1:]) for layer in output.quantized.ids] == list(config.layout.grids)


@pytest.mark.parametrize("config", [DIGITS, CNN, PHOTO, REGIONS], ids=["patches", "cnn", "photo", "regions"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_words_decode_to_what_forward_decodes(config: SpaeConfig, depth: int) -> None:
    model, images = SPAE(config, words(config)).eval(), pictures(config)
    with torch.no_grad():
        output = model(images, depth)
        ids = model.encode_ids(images)
        decoded = model.decode_ids(ids, depth)
        fewer = model.decode_ids(ids[:depth])
    for ours, theirs in zip(ids, output.quantized.ids, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.allclose(decoded, output.reconstruction.clamp(0, 1), atol=1e-5)
    assert torch.equal(decoded, fewer)
    assert decoded.min() >= 0
    assert decoded.max() <= 1


@pytest.mark.parametrize("config", [DIGITS, CNN, PHOTO], ids=lambda config: config.net)
def test_every_trainable_parameter_gets_a_gradient(config: SpaeConfig) -> None:
    model = SPAE(config, words(config)).train()
    model(pictures(config)).reconstruction.square().mean().backward()
    trained = model.encoder_parameters() + model.decoder_parameters()
    assert len(trained) == len({id(one) for one in trained}) == sum(one.requires_grad for one in model.parameters())
    without = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    assert not without


def test_a_digit_model_learns_to_reconstruct() -> None:
    model, images = SPAE(DIGITS, words(DIGITS)), pictures(DIGITS, 8)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    errors = []
    for step in range(60):
        output = model(images, 1 + step % 4)
        error = nn.functional.mse_loss(output.reconstruction, images)
        optimiser.zero_grad()
        (error + torch.stack(output.quantized.commitment).sum()).backward()
        optimiser.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("quantizer", "grids"), [("saq", (1, 2, 4)), ("rq", (4, 4)), ("vq", (4,))], ids=["saq", "rq", "vq"]
)
@pytest.mark.parametrize("learned", [False, True], ids=["frozen", "learned"])
def test_quantizers_and_codebooks(quantizer: str, grids: tuple[int, ...], learned: bool) -> None:
    config = dataclasses.replace(DIGITS, quantizer=quantizer, grids=grids, learned=learned)
    model = SPAE(config, words(config))
    output = model(pictures(config))
    (output.reconstruction.mean() + output.quantized.codebook_loss).backward()
    assert [id(one) for one in model.encoder_parameters()].count(id(model.quantizer.codebook)) == learned
    assert ("quantizer.codebook" in model.state_dict()) == learned


def test_a_learned_codebook_is_drawn_where_none_is_given() -> None:
    config = dataclasses.replace(DIGITS, learned=True, words=12)
    model = SPAE(config)
    assert model.quantizer.codebook.shape == (12, 16)
    assert model.quantizer.codebook.abs().max() <= 1 / 12


def test_standardised_vectors_start_among_the_words() -> None:
    codebook = words(DIGITS)
    vectors = codebook.mean(0) + torch.zeros(3, 16)
    model = SPAE(DIGITS, codebook)
    zeros = model.standard_to_words(torch.zeros(3, 16, 4, 4))
    assert torch.allclose(zeros[:, :, 0, 0], vectors, atol=1e-6)
    plain = SPAE(dataclasses.replace(DIGITS, standardise=False), codebook)
    assert torch.equal(plain.standard_to_words(torch.zeros(1, 16, 4, 4)), torch.zeros(1, 16, 4, 4))


def test_a_model_reads_back_from_config_and_state(tmp_path: object) -> None:
    codebook = words(DIGITS)
    model = SPAE(DIGITS, codebook).eval()
    again = SPAE(SpaeConfig.from_dict(json.loads(json.dumps(DIGITS.to_dict()))), codebook).eval()
    again.load_state_dict(model.state_dict())
    images = pictures(DIGITS)
    with torch.no_grad():
        assert torch.equal(again(images).reconstruction, model(images).reconstruction)


# -- names for layer 1


def test_names_belong_to_layer_1_alone() -> None:
    config = dataclasses.replace(DIGITS, names=5)
    model, images = SPAE(config, words(config)), pictures(config, 20)
    ids = model.encode_ids(images)
    assert ids[0].max() < 5
    assert min(int(layer.min()) for layer in ids[1:]) >= 5
    output = model(images)
    for ours, theirs in zip(ids, output.quantized.ids, strict=True):
        assert torch.equal(ours, theirs)


def test_each_layer_takes_the_nearest_of_its_own_words() -> None:
    config = dataclasses.replace(DIGITS, names=5)
    codebook = words(config)
    model = SPAE(config, codebook)
    z = codebook.mean(0)[None, :, None, None] + 0.1 * torch.randn(6, 16, 4, 4)
    ids = model.quantizer.encode_ids(z)
    again = model.quantizer.encode_ids(z, codebook)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(ids, again, strict=True))
    for layer, allowed in ((1, range(5)), (2, range(5, 24))):
        rows, columns = (torch.from_numpy(axis) for axis in config.layout.indices(layer))
        points = z[:, :, rows, columns].transpose(1, 2).reshape(-1, 16)
        best = [min(allowed, key=lambda word: float((point - codebook[word]).square().sum())) for point in points]
        assert ids[layer - 1].flatten().tolist() == best


def test_all_words_as_names_would_leave_none() -> None:
    with pytest.raises(UsageError, match="names, the words of layer 1 alone, must be .* from 1 to 23; got 24"):
        SPAE(dataclasses.replace(DIGITS, names=24), words(DIGITS))


# -- word noise


def test_word_noise_changes_what_the_decoder_sees_and_nothing_else() -> None:
    config = dataclasses.replace(DIGITS, word_noise=0.5)
    noisy, images = SPAE(config, words(config)), pictures(config, 16)
    clean = SPAE(DIGITS, words(DIGITS))
    clean.load_state_dict(noisy.state_dict())
    clean.quantizer = noisy.quantizer
    with_noise, without = noisy.train()(images), clean.train()(images)
    assert not torch.equal(with_noise.reconstruction, without.reconstruction)
    for ours, theirs in zip(with_noise.quantized.ids, without.quantized.ids, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(noisy.eval()(images).reconstruction, clean.eval()(images).reconstruction)


def test_swapped_words_come_from_the_same_place_and_spare_layer_1() -> None:
    config = dataclasses.replace(DIGITS, word_noise=0.5)
    model = SPAE(config, words(config))
    ids = [torch.arange(40).reshape(40, 1, 1) * 1000 + torch.arange(n * n).reshape(n, n) for n in config.grids]
    noisy = model.swapped(ids)
    assert torch.equal(noisy[0], ids[0])
    for before, after in zip(ids[1:], noisy[1:], strict=True):
        assert torch.equal(before % 1000, after % 1000)
        assert 0.2 < (before != after).float().mean() < 0.8


def test_word_noise_lets_the_encoder_learn() -> None:
    config = dataclasses.replace(DIGITS, word_noise=0.5)
    model = SPAE(config, words(config)).train()
    model(pictures(config)).reconstruction.square().mean().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in model.encoder_parameters())


# -- the photo net


def test_regions_name_the_first_layers_and_all_else_learns() -> None:
    model, images = SPAE(REGIONS, words(REGIONS)).train(), pictures(REGIONS)
    output = model(images)
    assert output.z.shape == (3, 6, 4, 4)
    named, vector = model.regions(images, model.quantizer.codebook)
    assert [torch.equal(a, b) for a, b in zip(named, output.quantized.ids, strict=False)] == [True, True]
    assert vector.shape == (3, 8)
    (output.reconstruction.square().mean() + output.quantized.codebook_loss).backward()
    trained = model.encoder_parameters() + model.decoder_parameters()
    assert len(trained) == sum(one.requires_grad for one in model.parameters())
    without = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    assert not without
    assert any(name.startswith("decoder.pixels.") for name, one in model.named_parameters() if one.requires_grad)
    assert not any(one.requires_grad for one in model.regions.parameters())


def test_what_frozen_nets_say_may_be_known_already() -> None:
    model, images = SPAE(REGIONS, words(REGIONS)).eval(), pictures(REGIONS)
    with torch.no_grad():
        known = model.frozen(images)
        assert [tuple(one.shape[1:]) for one in known] == [(32, 4, 4), (1, 1), (2, 2)]
        whole, recalled = model(images), model(torch.zeros_like(images), None, known)
    assert torch.equal(whole.reconstruction, recalled.reconstruction)
    assert SPAE(DIGITS, words(DIGITS)).frozen(pictures(DIGITS)) == ()


def test_latents_are_compared_in_units_of_pixels() -> None:
    torch.manual_seed(0)
    decoder = PhotoDecoder(32, 8, 16, 1)
    latents = 0.3 * torch.randn(4, 32, 4, 4)
    decoder.measure(latents)
    moved = latents + 0.01 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        pixels = (decoder.pixels(moved) - decoder.pixels(latents)).square().mean()
        ours = (decoder.in_pixels(moved) - decoder.in_pixels(latents)).square().mean()
        assert float(ours / pixels) == pytest.approx(1.0, abs=0.35)  # positions are taken one by one


def test_frozen_nets_stay_frozen_in_training() -> None:
    model = SPAE(PHOTO, words(PHOTO)).train()
    assert isinstance(model.encoder, PhotoEncoder)
    assert isinstance(model.decoder, PhotoDecoder)
    frozen = [model.encoder.trunk, model.encoder.latents, model.decoder.pixels]
    assert not any(part.training for net in frozen for part in net.modules())
    assert not any(one.requires_grad for net in frozen for one in net.parameters())
    before = {name: value.clone() for name, value in model.encoder.trunk.state_dict().items()}
    model(pictures(PHOTO))
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.trunk.state_dict().items())


def test_features_may_be_computed_beforehand() -> None:
    model, images = SPAE(PHOTO, words(PHOTO)).eval(), pictures(PHOTO)
    assert isinstance(model.encoder, PhotoEncoder)
    features = model.encoder.features(images)
    assert features.shape == (3, FROZEN_CHANNELS, 4, 4)
    assert not features.requires_grad
    assert torch.equal(model.standard_to_words(model.encoder.vectors(features)), model.encode(images))


def test_training_on_latents_spares_the_pixels() -> None:
    config = dataclasses.replace(PHOTO, train_on="latents")
    model, images = SPAE(config, words(config)).train(), pictures(config)
    assert isinstance(model.encoder, PhotoEncoder)
    output = model(images, 2)
    assert output.target is not None
    assert torch.equal(output.target, model.encoder.latents(images))
    assert output.reconstruction.shape == output.target.shape == (3, 32, 4, 4)
    nn.functional.mse_loss(output.reconstruction, output.target).backward()
    trained = model.encoder_parameters() + model.decoder_parameters()
    assert all(one.grad is not None for one in trained)
    judged = model.eval()(images, 2)
    assert judged.target is None
    assert judged.reconstruction.shape == images.shape
    assert torch.allclose(judged.quantized.quantized, output.quantized.quantized, atol=1e-5)


def test_pretrained_parts_need_their_files(tmp_path: object) -> None:
    with pytest.raises(UsageError, match="net patches has no pretrained parts; only the nets photo"):
        SPAE(DIGITS, words(DIGITS)).load_pretrained(str(tmp_path))
    with pytest.raises(ArtefactNotFoundError, match="taef2-encoder"):
        SPAE(PHOTO, words(PHOTO)).load_pretrained(str(tmp_path))


# -- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net": "vit"}, "net must be one of cnn, patches, photo; got 'vit'"),
        ({"quantizer": "fsq"}, "quantizer must be one of saq, rq, vq, projected; got 'fsq'"),
        ({"fill": "mean"}, "fill must be one of finest, zeros; got 'mean'"),
        ({"learned": 1}, "learned must be true or false; got 1"),
        ({"side": 0}, "side must be a whole number of 1 or more; got 0"),
        ({"width": True}, "width must be a whole number; got True"),
        ({"dim": 12.0}, "dim must be a whole number; got 12.0"),
        ({"channels": 2}, r"channels must be 1 \(grey\) or 3 \(RGB\); got 2"),
        ({"grids": []}, r"grids must be a list of one or more whole numbers; got \[\]"),
        ({"grids": "124"}, "grids must be a list; got '124'"),
        ({"grids": [1, 0]}, "each of grids must be a whole number of 1 or more; got 0"),
        ({"multipliers": [1, 2]}, "net cnn makes the image 2 times smaller .* got side 128 and grid 16"),
        ({"quantizer": "vq"}, r"quantizer vq has one grid; got grids \[1, 2, 4, 8, 16, 16\]"),
        ({"quantizer": "rq"}, r"quantizer rq needs equal grids, one per layer; got \[1, 2, 4, 8, 16, 16\]"),
        ({"word_noise": 0.7}, "word_noise must be a number from 0 to 0.5; got 0.7"),
        ({"word_noise": True}, "word_noise must be a number; got True"),
        ({"train_on": "words"}, "train_on must be one of pixels, latents; got 'words'"),
        ({"quantizer": "projected"}, "quantizer projected needs projection, the width it maps words to"),
        ({"projection": 8}, "no other quantizer has one; got quantizer saq and projection 8"),
        ({"quantizer": "projected", "projection": 8, "learned": True}, "learned, normalise and standardise must be"),
        ({"region_layers": 2}, "needs net photo; got 2 of 6 layers and net cnn"),
        ({"net": "photo", "region_layers": 3}, "region_layers needs quantizer projected; got saq"),
        ({"thaw": True}, "thaw and decoder_blocks are for net photo; got net cnn"),
        ({"net": "photo", "thaw": True, "train_on": "latents"}, "thaw needs train_on pixels"),
        ({"thaw": 1}, "thaw must be true or false; got 1"),
        ({"region_layers": -1}, "region_layers must be a whole number of 0 or more; got -1"),
        ({"train_on": "latents"}, "train_on latents is for net photo, which has TAEF2's latents; got net cnn"),
        ({"names": -1}, "names must be a whole number of 0 or more; got -1"),
        ({"names": 10, "quantizer": "rq", "grids": [16, 16]}, "names gives layer 1 words of its own, which needs"),
        ({"words": 100}, "words asks for a codebook drawn at random, which must be learned: set learned: true"),
        ({"words": 0, "learned": True}, "words must be a whole number of 1 or more; got 0"),
        ({"net": "photo", "channels": 1}, "net photo is for RGB images: channels must be 3; got 1"),
        ({"net": "photo", "side": 256}, "net photo makes the image 8 times smaller .TAEF2."),
        (
            {"net": "patches", "side": 48, "grids": [16]},
            "net patches needs side to be the last grid times 2, 4, 8, ...; got side 48, grid 16",
        ),
        ({"filter": 3}, r"unknown key 'filter' \(did you mean 'filters'\?\); allowed are net, side, channels, grids"),
    ],
)
def test_bad_configs(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SpaeConfig.from_dict(change)


def test_grids_that_do_not_fit_each_other() -> None:
    with pytest.raises(PyramidError, match="must be a multiple of every grid"):
        SpaeConfig(grids=(1, 3, 16))
    with pytest.raises(UsageError, match="the configuration: .*must be a multiple of every grid"):
        SpaeConfig.from_dict({"grids": [1, 3, 16]})


def test_a_config_must_be_a_mapping() -> None:
    with pytest.raises(UsageError, match="the configuration must be a mapping of keys to values; got 'spae'"):
        SpaeConfig.from_dict("spae")  # type: ignore[arg-type]  # wrong on purpose


def test_a_codebook_must_fit() -> None:
    with pytest.raises(UsageError, match=r"must be \[T, 16\] as the config's dim says; got \[24, 8\]"):
        SPAE(DIGITS, words(CNN))
    with pytest.raises(UsageError, match="SPAE needs a codebook"):
        SPAE(DIGITS)
    with pytest.raises(UsageError, match="draws a codebook of 12 words, and one was given"):
        SPAE(dataclasses.replace(DIGITS, learned=True, words=12), words(DIGITS))


def test_images_must_fit() -> None:
    model = SPAE(DIGITS, words(DIGITS))
    with pytest.raises(UsageError, match=r"images must be \[B, 1, 32, 32\]; got \[2, 3, 32, 32\]"):
        model(torch.rand(2, 3, 32, 32))
    with pytest.raises(UsageError, match="must be floating point in .0, 1.; got torch.uint8"):
        model.encode(torch.zeros(2, 1, 32, 32, dtype=torch.uint8))
    with pytest.raises(PyramidError, match="depth"):
        model(pictures(DIGITS), depth=5)
