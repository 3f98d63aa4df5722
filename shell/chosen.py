"""What slash commands chose for the next turns and probes of a directory, in its dot file `.settings.json`."""

from __future__ import annotations

import msgspec

from ssmprov import durable
from ssmprov.errors import BadRequest
from ssmprov.probes import Look
from ssmprov.settings import Settings, apply, check_value
from transcripts.record import SETTINGS, Record

MAX_BYTES = 64 * 1024


class Chosen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sampling values that replace those of the model's default set, and how probes read."""

    values: dict[str, int | float] = {}
    look: Look = Look()


def chosen_of(record: Record) -> Chosen:
    """What was chosen here. Raises BadRequest if the file is damaged."""
    path = record.directory / SETTINGS
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Chosen()
    if not data:  # code in the sandbox sees an empty file
        return Chosen()
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        found = msgspec.json.decode(data, type=Chosen)
        look = Look().with_routing(found.look.routing_text).with_masked(found.look.masked_text)
        values = {key: check_value(key, value) for key, value in found.values.items()}
    except (ValueError, RecursionError, BadRequest) as error:
        raise BadRequest(
            f"{path} is damaged ({error}): remove it, then choose your settings again with /t, /load_set and so on"
        ) from None
    return Chosen(values=values, look=look)


def choose(record: Record, chosen: Chosen) -> None:
    """Keep this for the next turns. Call it while holding the record's lock."""
    durable.replace(record.directory / SETTINGS, msgspec.json.encode(chosen))


def settings_here(default: dict[str, float], chosen: Chosen) -> Settings:
    """All settings of the next turn, from the values of the model's default set."""
    return apply(apply(Settings(), default), chosen.values)
