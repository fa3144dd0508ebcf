"""The causal language model over a decoder: abduction of the individual, action on it, the two losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from headtool.causal import one_vs_rest
from headtool.causal.laws import law
from headtool.causal.settings import Settings
from headtool.models.batches import IGNORED
from headtool.models.language import Head, head_of


@dataclass(frozen=True)
class Individual:
    """What is known of U at each position (position, latent): its loc, and its spread with the noise's."""

    loc: torch.Tensor
    spread: torch.Tensor | None  # None in the plain model


class CausalModel(nn.Module):
    """A decoder whose head is: U' ~ law(W_loc z + b_loc, softplus(W_scale z + b_scale) + |b_noise|), S = W U' + b, Y = w.U' + b.

    All of it is closed form: scores and number have the law's loc and spread (laws.py). With as many latent dimensions as
    the decoder is wide, W is the decoder's own head and what is tied stays tied; otherwise W is a parameter of its own.
    """

    def __init__(self, backbone: Any, settings: Settings, num: int) -> None:
        super().__init__()
        self.backbone, self.settings, self.num = backbone, settings, num
        self.law = law(settings.distribution)
        own = head_of(backbone)
        self.factor, self.cap, self.tied = own.factor, own.cap, own.tied
        vocabulary, width = own.weight.shape
        self.sample = 0  # positions whose scores are looked at for the log
        self.latent = width if settings.plain else settings.causal_dim or width
        like: dict[str, Any] = {"dtype": own.weight.dtype, "device": own.weight.device}
        self.shared = self.latent == width
        embedded = backbone.get_input_embeddings().weight.shape[1]
        self.number = nn.Parameter(torch.zeros(embedded, **like))  # w_num: 0 leaves the decoder's own reading at first
        self.weight = None if self.shared else nn.Parameter(torch.empty(vocabulary, self.latent, **like))
        self.bias = nn.Parameter(torch.zeros(vocabulary, **like))
        self.regression = nn.Linear(self.latent, 1, **like)
        if not settings.plain:
            self.loc = nn.Linear(width, self.latent, **like)
            self.scale = nn.Linear(width, self.latent, **like)
            self.noise = nn.Parameter(torch.full((self.latent,), float(settings.b_noise), **like))
        self._start(own)

    @torch.no_grad()
    def _start(self, own: Head) -> None:
        """Where training starts: loc_S is the decoder's own logits, every scale is gamma0."""
        nn.init.xavier_uniform_(self.regression.weight, gain=0.01)
        nn.init.zeros_(self.regression.bias)
        if self.settings.plain:
            return
        nn.init.zeros_(self.loc.bias)
        nn.init.zeros_(self.scale.weight)
        gamma = self.settings.gamma0
        self.scale.bias.fill_(gamma + math.log(-math.expm1(-gamma)))  # softplus of it is gamma
        if self.weight is None:
            nn.init.eye_(self.loc.weight)
        elif self.loc.weight.device.type != "meta":
            # Of fewer dimensions the best: the head's leading right singular vectors. Of more, some start without weight.
            _, vectors = torch.linalg.eigh(own.weight.double().T @ own.weight.double())
            leading = vectors.flip(1)[:, : self.latent].T.to(self.loc.weight.dtype)
            self.loc.weight.zero_()
            self.loc.weight[: len(leading)] = leading
            self.weight.zero_()
            self.weight[:, : len(leading)] = own.weight @ leading.T
            if self.latent > len(leading):
                nn.init.normal_(self.weight[:, len(leading) :], std=float(own.weight.std()))
        if not self.shared and not self.tied:
            self.backbone.get_output_embeddings().requires_grad_(False)  # nothing reads it any more

    # -- the four stages -------------------------------------------------------------------------------------------

    def features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The last hidden state z (batch, position, width) of embeddings e = embed(x) + phi(v), padded on the right."""
        table = self.backbone.get_input_embeddings()
        size = values.sign() * values.abs().log1p() if self.settings.number_encoding == "log" else values
        embedded = table(input_ids) + size.to(self.number.dtype)[..., None] * self.number
        return self.backbone.base_model(inputs_embeds=embedded, attention_mask=attention_mask)[0]

    def abduct(self, z: torch.Tensor) -> Individual:
        """The individual at each of some positions (position, width), in the weights' own precision."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(self.bias.dtype)
            if self.settings.plain:
                return Individual(z, None)
            scale = functional.softplus(self.scale(z))
            return Individual(self.loc(z), self.law.spread(scale) + self.law.spread(self.noise.abs()))

    def action(self) -> tuple[torch.Tensor, torch.Tensor]:
        """W (vocabulary, latent) without the head's factor, and the bias less the threshold (vocabulary,)."""
        output = self.backbone.get_output_embeddings()
        weight = output.weight if self.weight is None else self.weight
        bias = self.bias
        if getattr(output, "bias", None) is not None:
            bias = bias + self.factor * output.bias
        return weight, bias

    def scores(
        self, individual: Individual, tokens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """loc_S and spread_S (position, token) of the tokens named, or of all: memory of positions x vocabulary."""
        with torch.autocast(self.bias.device.type, enabled=False):
            weight, bias = self.action()
            if tokens is not None:
                weight, bias = weight[tokens], bias[tokens]
            loc = functional.linear(individual.loc * self.factor, weight, bias)
            if individual.spread is None:
                return loc, None
            return loc, functional.linear(individual.spread * self.law.weigh(self._factor()), self.law.weigh(weight))

    def value(self, individual: Individual) -> tuple[torch.Tensor, torch.Tensor | None]:
        """loc_Y and spread_Y (position,) of the number, in its own unit."""
        with torch.autocast(self.bias.device.type, enabled=False):
            s = self.settings
            loc = s.centre + s.unit * self.regression(individual.loc)[:, 0]
            if individual.spread is None:
                return loc, None
            unit = torch.tensor(s.unit, dtype=loc.dtype, device=loc.device)
            return loc, self.law.weigh(unit) * (individual.spread @ self.law.weigh(self.regression.weight[0]))

    def _factor(self) -> torch.Tensor:
        return torch.tensor(self.factor, dtype=self.bias.dtype, device=self.bias.device)

    # -- the losses ------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        values: torch.Tensor,
        labels: torch.Tensor,
        targets: torch.Tensor,
        drawn: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The losses of a batch, each a mean: loss = loss_cls + lambda loss_reg.

        labels (batch, position) are the tokens to be predicted at each position, already shifted, else -100; targets
        (batch, position) float64 the number to be predicted there, NaN where there is none. drawn: token ids of --negatives.
        """
        z = self.features(input_ids, attention_mask, values)
        valid = labels != IGNORED
        individual = self.abduct(z[valid])
        told = self.losses(individual, labels[valid], targets[valid], drawn)
        with torch.no_grad():
            told["loc_u"] = individual.loc.abs().mean()
            if individual.spread is not None:
                told["scale_u"] = self.law.scale(individual.spread).mean()
            if self.sample:
                told |= self._look(individual, labels[valid])
        return told

    def _look(self, individual: Individual, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the log says of the first positions of a batch: sum_k P_k, and the accuracy of both rules."""
        n, spread = self.sample, individual.spread
        loc, wide = self.scores(Individual(individual.loc[:n], None if spread is None else spread[:n]))
        told = {"accuracy_softmax": (loc.argmax(-1) == labels[:n]).float().mean()}
        if wide is not None:
            x = loc - self.settings.threshold
            told["accuracy_ovr"] = (self.law.standing(x, wide).argmax(-1) == labels[:n]).float().mean()
            told["sum_p"] = self.law.probability(x, wide).sum(-1).mean()
        return told

    def losses(
        self, individual: Individual, labels: torch.Tensor, targets: torch.Tensor, drawn: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The losses at some positions: (position, latent), labels and targets (position,)."""
        half = torch.is_autocast_enabled(labels.device.type)
        with torch.autocast(labels.device.type, enabled=False):
            loss_cls = self.token_loss(individual, labels, drawn, coarse=half) / max(len(labels), 1)
            masked = targets.isfinite()
            loss_reg = self.number_loss(
                Individual(individual.loc[masked], None if individual.spread is None else individual.spread[masked]),
                targets[masked],
            )
            loss_reg = loss_reg.sum() / max(int(masked.sum()), 1)  # a sum over nothing is 0, and has a gradient
            return {"loss": loss_cls + self.settings.reg_weight * loss_reg, "loss_cls": loss_cls, "loss_reg": loss_reg}

    def token_loss(
        self,
        individual: Individual,
        labels: torch.Tensor,
        drawn: torch.Tensor | None = None,
        *,
        coarse: bool = False,
    ) -> torch.Tensor:
        """L_cls summed over positions."""
        s = self.settings
        if s.head == "softmax" or individual.spread is None:
            return functional.cross_entropy(self.scores(individual)[0], labels, reduction="sum")
        weight, bias = self.action()
        loc, spread = individual.loc * self.factor, individual.spread * self.law.weigh(self._factor())
        given = (self.law, loc, spread, weight, bias - s.threshold, labels)
        total = one_vs_rest.loss(*given, coarse=coarse) if drawn is None else one_vs_rest.sampled(*given, drawn)
        return total / len(weight) if s.ovr_reduction == "mean" else total

    def number_loss(self, individual: Individual, targets: torch.Tensor) -> torch.Tensor:
        """Gate x NLL (position,) of positions whose label is a number; in the plain model the error in units."""
        s = self.settings
        loc, spread = self.value(individual)
        away = (targets.double() - loc) / s.unit  # in float64: a number may be larger than float32 goes
        if spread is None:
            return away.abs().to(loc.dtype)
        # The density of (value - centre) / unit: the log of the unit would only shift the loss.
        width = spread.double() / self.law.weigh(torch.tensor(s.unit, dtype=torch.float64, device=loc.device))
        nll = self.law.nll(away, torch.zeros_like(away), width).to(loc.dtype)
        alpha = s.gate_alpha
        return nll if alpha == 1 else (alpha + (1 - alpha) * self.is_number(individual)) * nll

    def is_number(self, individual: Individual) -> torch.Tensor:
        """P_<NUM> (position,) by the head's own rule."""
        if self.settings.head == "softmax" or individual.spread is None:
            logits, _ = self.scores(individual)
            return logits.log_softmax(-1)[:, self.num].exp()
        loc, spread = self.scores(individual, torch.tensor([self.num], device=individual.loc.device))
        assert spread is not None
        inside, _ = self.law.log_tails(loc[:, 0] - self.settings.threshold, spread[:, 0])
        return inside.exp()
