"""The training losses of LQAE, each with its weight, each switchable.

Knows: how the parts are computed, weighted and added. Refuses to know: nets, optimisers, data, logging.

Source: Liu et al. 2023, "Language Quantized AutoEncoders" (arXiv:2302.00902), section 2:

    L = reconstruction + beta * commitment + alpha * MLM,     alpha = .001, beta = .005

The published code differs: its README trains with alpha = .0001, and without projection it adds the commitment loss
twice, so that its .005 works as .01; its loss of hidden words divides by their number, NaN where none is hidden (here
0). Squares are means over elements, as there. The entropy term is that of its ablation (as in MaskGIT's code): every
vector should be sure of its word, and all words be used alike.

Letters in shapes: B images, P words of an image, d width of the encoder's vectors, c of the text encoder, T words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from icl_vision.checks import number
from icl_vision.files.typed import check_fields
from icl_vision.models.losses.spae import LossReport
from icl_vision.models.lqae import LQAE, LqaeOutput

_WEIGHTS = ("pixel", "direct", "commitment", "codebook", "mlm", "entropy")


@dataclass(frozen=True)
class LqaeLossConfig:
    """Weights of the parts; 0 switches a part off. The defaults are the paper's.

    pixel: squared error of the picture that comes out of the text encoder (of TAEF2's latents where they are trained
    on). direct: the same of the words' own vectors, past the text encoder. commitment: beta, squared error between the
    encoder's vectors and their words as seen. codebook: pulls a learned codebook's words to the vectors. mlm: alpha,
    cross-entropy of the hidden words; needs a text encoder with its head. entropy: see above; temperature: of its
    softmax over squared distances. even, ours: no part of its own: where latents are trained on, how much all of them
    count alike beside what each matters to a pixel (``Decoder.measure``); 0 is pixels alone, 10 nearly latents as they
    are.
    """

    pixel: float = 1.0
    direct: float = 0.0
    commitment: float = 0.005
    codebook: float = 1.0
    mlm: float = 0.001
    entropy: float = 0.0
    even: float = 0.0
    temperature: float = 0.01

    def __post_init__(self) -> None:
        check_fields(self)
        for name in _WEIGHTS:
            number(f"the loss weight {name}", getattr(self, name), least=0)
        number("loss.even", self.even, least=0)
        number("loss.temperature", self.temperature, above=0)


def lqae_loss(config: LqaeLossConfig, images: Tensor, output: LqaeOutput, model: LQAE) -> LossReport:
    """The total to call ``backward`` on, and its parts as far as they are switched on.

    Args:
        config: the weights.
        images: floating [B, ch, S, S] in [0, 1].
        output: what the model made of them.
        model: for the words of a learned codebook, for closeness to all words, and for the text encoder's head.
    """
    target = images if output.target is None else output.target
    # Only what counts is computed: closeness to all words is [B P, T].
    parts: dict[str, Callable[[], Tensor]] = {
        "pixel": lambda: F.mse_loss(output.reconstruction.float(), target.float()),
        "direct": lambda: _direct(output, target),
        "commitment": lambda: F.mse_loss(output.points, output.chosen.detach()),
        "mlm": lambda: mlm_loss(model, output),
        "entropy": lambda: entropy_loss(model.lookup.closeness(output.points.flatten(0, 1)) / config.temperature),
    }
    if model.config.learned:
        parts["codebook"] = lambda: F.mse_loss(output.chosen, output.points.detach())
    values = {name: part() for name, part in parts.items() if getattr(config, name) > 0}
    total = torch.stack([getattr(config, name) * value for name, value in values.items()]).sum()
    return LossReport(total, {name: value.detach() for name, value in values.items()})


def mlm_loss(model: LQAE, output: LqaeOutput) -> Tensor:
    """Cross-entropy of the hidden words, the mean over those that are hidden; 0 where none is, and where the pass went
    past the text encoder."""
    if output.states is None or model.text is None or not bool(output.masked.any()):
        return output.points.new_zeros(())
    logits = model.text.logits(output.states[output.masked])
    assert logits is not None  # the configuration asks for a head
    return F.cross_entropy(logits.float(), output.ids.flatten(1)[output.masked])


def entropy_loss(logits: Tensor) -> Tensor:
    """logits over the words [N, T] -> the mean of the entropies minus the entropy of the mean, in nats."""
    log = logits.log_softmax(1)
    share = log.exp()
    mean = share.mean(0)
    return -(share * log).sum(1).mean() + torch.xlogy(mean, mean).sum()


def _direct(output: LqaeOutput, target: Tensor) -> Tensor:
    assert output.direct is not None  # asked for where its weight is above 0
    return F.mse_loss(output.direct.float(), target.float())
