"""`ssmprov probe`: shows how a model with addressed slots reads a text after a context."""

from __future__ import annotations

from typing import Any

import click

from clients import probe_view
from shell.options import complete_context, connect, json_option, usual_model_option
from shell.pipe import read_text
from shell.tables import echo_json
from ssmprov.formatting import plain
from ssmprov.ops import MASK_WHERES, MAX_PROBE_REPLY
from ssmprov.probes import Look


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("context", default="", shell_complete=complete_context)
@click.argument("text", default="-")
@click.option("--routing", default="softmax", metavar="HOW", help="softmax, top1, or topk:N for the N heaviest slots.")
@click.option("--slotmask", default="", metavar="SLOTS", help="Leave out these slots of every head, such as 0,3.")
@click.option(
    "--where",
    type=click.Choice(MASK_WHERES),
    default=MASK_WHERES[0],
    show_default=True,
    help="Where the slots are left out.",
)
@click.option(
    "--top",
    type=click.IntRange(1, 64),
    default=5,
    show_default=True,
    help="List this many slots per layer, and this many next tokens.",
)
@click.option(
    "--reply",
    "reply_tokens",
    type=click.IntRange(0, MAX_PROBE_REPLY),
    default=0,
    metavar="N",
    help="Also write a reply of N tokens, always taking the most likely one.",
)
@usual_model_option
@json_option
def probe(
    context: str,
    text: str,
    routing: str,
    slotmask: str,
    where: str,
    top: int,
    reply_tokens: int,
    model: str,
    as_json: bool,
) -> None:
    """Show how a model of the asm runtime reads TEXT after CONTEXT. This changes nothing.

    Without CONTEXT, or with '', the text follows the empty context. Without TEXT, or with `-`, it is read from standard
    input, byte for byte.

    \b
    ssmprov probe live "The capital of France is"
    ssmprov probe live "The capital of France is" --routing top1 --slotmask 0,3 --reply 20
    printf 'Once upon a time' | ssmprov probe --model asm-mini

    For each layer you see the entropy of the last token's read weights and its mean over all tokens (in nats), the
    scalars gate, gamma and strength, and the slots read most. With --routing or --slotmask you also see the result
    without them, and how far the two next-token distributions diverge.
    """
    look = Look().with_routing(routing).with_where(where)
    if slotmask:
        look = look.with_masked(slotmask)
    read = read_text() if text == "-" else text
    with connect() as client:
        seen = client.probe(read, context, model=model, look=look, top=top, reply_tokens=reply_tokens)
    if as_json:
        found: dict[str, Any] = {**plain(seen.result), "reply": seen.reply, "plain_reply": seen.plain_reply}
        echo_json(found)
    else:
        click.echo("\n".join(probe_view.lines(seen, look)))
