"""What a causal model says after a text: the next token, and the number with its interval where it is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headtool.causal.model import CausalModel, Individual
from headtool.causal.numbers import Piece
from headtool.causal.settings import Asked
from headtool.causal.tokens import NumberTokenizer
from headtool.errors import HeadtoolError


@dataclass(frozen=True)
class Step:
    """One token. p is the probability of the token by the mode's rule; value, low, high are None where it is no number."""

    token: int
    p: float
    p_number: float
    value: float | None
    low: float | None
    high: float | None


@torch.no_grad()
def go_on(
    model: CausalModel, tokens: NumberTokenizer, pieces: Sequence[Piece], ask: Asked, *, longest: int, end: int | None
) -> tuple[list[Step], str]:
    """The tokens after a text and their text. A step of ask.number is the number, and is the last.

    Raises HeadtoolError for a text that leaves the model no room. The generator is seeded anew for each text.
    """
    ids, values = tokens.encode_pieces(pieces)
    if end is not None and len(ids) > 1 and ids[-1] == end:
        ids, values = ids[:-1], values[:-1]  # a tokenizer that closes its texts
    if not ids:
        raise HeadtoolError("the text is empty", hint="give a text to go on from")
    if len(ids) + (not ask.number) * ask.new_tokens > longest + 1:
        more = f" and --new-tokens {ask.new_tokens} more" if ask.new_tokens > 1 else ""
        raise HeadtoolError(
            f"the text has {len(ids)} tokens{more}, and the model has room for {longest}",
            hint="give a shorter text, or fewer --new-tokens" if more else "give a shorter text",
        )
    draw = Draw(model, ask)
    start, steps = len(ids), []
    for _ in range(1 if ask.number else ask.new_tokens):
        device = model.bias.device
        given = torch.tensor([ids], device=device)
        z = model.features(given, torch.ones_like(given), torch.tensor([values], dtype=torch.float64, device=device))
        step = choose(model, model.abduct(z[0, -1:]), draw, ask)
        if step.token == end and not ask.number:
            break
        steps.append(step)
        ids.append(step.token)
        values.append(step.value or 0.0)
    return steps, tokens.decode(ids[start:], values[start:])


def choose(model: CausalModel, individual: Individual, draw: Draw, ask: Asked) -> Step:
    """One step from the individual at one position; in mode causal from the one that is drawn."""
    p_number = float(model.is_number(individual)[0])
    acted = draw.act(individual) if ask.mode == "causal" else individual
    loc, spread = model.scores(acted)
    assert spread is not None
    x = loc[0] - model.settings.threshold
    if ask.number:
        token, p = model.num, p_number
    elif ask.mode == "compatible":
        token, p = sample(loc[0].double() / ask.temperature, ask, draw.generator)
    elif ask.mode == "standard" and model.settings.head == "softmax":
        token, p = int(loc[0].argmax()), float(loc[0].softmax(-1).max())
    elif spread.any():
        token = int(model.law.standing(x, spread[0]).argmax())
        p = float(model.law.probability(x, spread[0])[token])
    else:  # without noise P is 0 or 1: its limit in order is that of loc - C
        token = int(x.argmax())
        p = float(x[token] > 0)
    if token != model.num:
        return Step(token, p, p_number, None, None, None)
    median, width = model.value(acted)
    assert width is not None
    value = float(median[0])
    half = model.law.half_width(ask.interval) * float(model.law.scale(width.double())[0])
    return Step(token, p, p_number, value, value - half, value + half)


def sample(logits: torch.Tensor, ask: Asked, generator: torch.Generator) -> tuple[int, float]:
    """A token by top-k, then top-p of softmax(logits), and its probability among those kept."""
    p = logits.cpu().softmax(-1)
    kept, index = p.sort(descending=True, stable=True)
    before = kept.cumsum(0) - kept
    kept = torch.where((torch.arange(len(kept)) < ask.top_k) & (before < ask.top_p), kept, 0)
    kept = kept / kept.sum()
    at = int(torch.multinomial(kept, 1, generator=generator))
    return int(index[at]), float(kept[at])


class Draw:
    """The draws of a sequence, in float64: of the individual u = loc + scale q(e), or of the noise b_noise q(e), q the
    quantile of the law; e is drawn for each position, or with shared once for all.
    """

    def __init__(self, model: CausalModel, ask: Asked) -> None:
        self.law, self.shared, self.mode = model.law, ask.shared, ask.mode
        self.generator = torch.Generator().manual_seed(ask.seed)
        self.noise = None if model.settings.plain else model.noise.detach().abs().double().cpu()
        self._kept: torch.Tensor | None = None

    def act(self, individual: Individual) -> Individual:
        """U' of one position (1, latent), with the spread that is left in it.

        Drawn is the individual, and the noise stays in closed form; with shared noise the noise is drawn, and the
        individual stays.
        """
        assert individual.spread is not None
        assert self.noise is not None
        loc, device = individual.loc.double(), individual.loc.device
        noise = self.law.spread(self.noise).to(device)
        if self._kept is None or self.shared == "none":
            e = torch.rand(loc.shape[-1], generator=self.generator, dtype=torch.float64)
            self._kept = self.law.quantile(e.clamp(min=2.0**-54)).to(device)
        own = (individual.spread.double() - noise).clamp(min=0)
        drawn, left = (noise, own) if self.shared == "noise" else (own, noise.expand_as(own))
        acted = loc + self.law.scale(drawn) * self._kept
        return Individual(acted.to(individual.loc.dtype), left.to(individual.loc.dtype))
