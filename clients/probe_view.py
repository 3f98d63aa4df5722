"""Formats the result of a probe: its layers, the next tokens, and how plain reading differs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from clients.requests import Seen
from ssmprov.formatting import columns, short
from ssmprov.ops import LayerProbed, NextToken
from ssmprov.probes import Look
from ssmprov.terminal import harmless, printable


def lines(seen: Seen, look: Look) -> list[str]:
    """All lines of a probe. Entropies and the divergence are in nats; a slot is written hHEAD/sSLOT."""
    result = seen.result
    after = (
        f"after {result.context_tokens} tokens of {short(result.object)}"
        if result.object
        else "after the empty context"
    )
    again = f" ({result.prefill_tokens} of them read again)" if result.prefill_tokens else ""
    shape = f"{result.heads} heads of {result.slots} slots"
    found = [f"{result.tokens} tokens read {after}{again}; {shape}, entropy at most {result.max_entropy:.3f}"]
    if result.intervened:
        where = f" ({look.where})" if look.masked else ""
        found.append(f"routing {look.routing_text}, slotmask {look.masked_text}{where}")
    found += ["", *_layers(result.layers), "", *_next(result.next, result.plain_next, result.intervened)]
    if result.intervened:
        found += ["", f"divergence from plain reading: {result.divergence:.4g}"]
    if result.reply_tokens:
        found += ["", f"reply: {harmless(seen.reply)}"]
    if result.plain_reply_tokens:
        found += ["", f"plain reply: {harmless(seen.plain_reply)}"]
    return found


def _layers(layers: Sequence[LayerProbed]) -> list[str]:
    return columns(
        ("LAYER", "ENTROPY", "MEAN", "GATE", "GAMMA", "STRENGTH", "TOP SLOTS OF THE LAST TOKEN"),
        [
            (
                number,
                *(f"{value:.3f}" for value in (layer.entropy, layer.mean_entropy)),
                *(f"{value:.4f}" for value in (layer.gate, layer.gamma, layer.strength)),
                "  ".join(f"h{head}/s{slot} {weight:.3f}" for head, slot, weight in layer.top),
            )
            for number, layer in enumerate(layers)
        ],
    )


def _next(tokens: Sequence[NextToken], plain: Sequence[NextToken], intervened: bool) -> list[str]:
    if not intervened:
        return columns(("NEXT", "PROBABILITY"), [_cells(token) for token in tokens])
    return columns(
        ("NEXT", "PROBABILITY", "PLAIN", "PROBABILITY"),
        [(*_cells(one), *_cells(other)) for one, other in zip_longest(tokens, plain)],
    )


def _cells(token: NextToken | None) -> tuple[str, str]:
    if token is None:
        return "", ""
    return (f"'{printable(token.text)}'" if token.text else f"(token {token.token})"), f"{token.probability:.4f}"
