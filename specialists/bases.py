"""What a run with gradients starts from: the weights of a served model on this machine, and perhaps an earlier run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from clients.blocking import Client
from models import mini
from specialists.ledger import STATE, Ledger, Run
from specialists.stages import STAGES, Stage
from ssmprov import configuration
from ssmprov.errors import BadRequest, NotFound, Unsupported, WrongModel, nearest
from training.policy import Architecture

BEGINNING = "none"
"""The word to use instead of a run, to start from the model itself."""

ARCHITECTURES: dict[str, Architecture] = {"rwkv": "rwkv7", "asm": "asm"}
EMBEDDED = {"@mini": mini.path, "@asm-mini": mini.asm_path}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A model whose state and weights can be tuned on this machine. `scan` and `pos_mode` come from its table."""

    model: str
    architecture: Architecture
    path: Path
    scan: str | None
    pos_mode: str | None


def base_of(client: Client, model: str) -> LocalModel:
    """The local files of a served model.

    Raises NotFound if the model is not served or not configured here, and Unsupported if it cannot be tuned.
    """
    served = {card.name: card for card in client.models()}
    if model not in served:
        raise NotFound(f"no worker serves the model {model!r}{nearest(model, served)}")
    runtime = served[model].runtime
    if runtime not in ARCHITECTURES:
        raise Unsupported(
            f"{model} is served by the runtime {runtime}, which computes no gradients: `ssmprov specialist prime` "
            f"works with every runtime, `tune` and `train` with {' and '.join(ARCHITECTURES)}"
        )
    config = os.environ.get("SSMPROV_CONFIG")
    configured = configuration.load_or_shipped(Path(config) if config else None)
    table = configured.model(model)
    embedded = EMBEDDED.get(table.path)
    path = embedded() if embedded else configured.path(table.path)
    if not path.exists():
        raise NotFound(f"{path} does not exist: tuning needs the weights of {model} on this machine")
    return LocalModel(
        model=model,
        architecture=ARCHITECTURES[runtime],
        path=path,
        scan=table.options.get("scan") or None,
        pos_mode=table.options.get("pos_mode") or None,
    )


def fingerprint_of(client: Client, model: str) -> str:
    """The fingerprint of the weights that are served now; '' if the model is not served."""
    return next((card.fingerprint for card in client.models() if card.name == model), "")


def refuse_another(client: Client, base: LocalModel, fingerprint: str) -> None:
    """Raises WrongModel if the weights on this machine are not the served ones."""
    served = fingerprint_of(client, base.model)
    if served != fingerprint:
        raise WrongModel(
            f"{base.path} contains the model {fingerprint[:12]}, but the workers of {base.model} serve {served[:12]}: "
            "restart them, or set the right file in the configuration",
            made_by=fingerprint,
            needed=served,
        )


def parent_of(ledger: Ledger, stage: Stage, wanted: str, model: str) -> Run | None:
    """The run to start from: the wanted one, or the last completed one of an earlier stage. None means the model.

    Raises NotFound, and BadRequest if the run has no state to start from or used another model.
    """
    if wanted == BEGINNING:
        return None
    if wanted:
        run = ledger.run(wanted)
        if run.status != "completed" or not state_of(ledger, run).is_file():
            what = f"is {run.status}" if run.status != "completed" else f"has no {STATE} in its folder"
            what = "read rows through the broker" if run.kind == "prime" else what
            raise BadRequest(
                f"the run {run.id} {what}: you can only continue from a completed run of `tune` or `train`"
            )
        if run.model != model:
            raise BadRequest(
                f"the run {run.id} used the model {run.model}, but the plan names {model}: start from a run of that "
                f"model, or from the model itself (`--from {BEGINNING}`)"
            )
        return run
    earlier = STAGES[: STAGES.index(stage)]
    found = [
        run
        for run in ledger.runs()
        if run.stage in earlier and run.status == "completed" and run.model == model and state_of(ledger, run).is_file()
    ]
    return max(found, key=lambda run: (STAGES.index(run.stage), run.order)) if found else None


def state_of(ledger: Ledger, run: Run) -> Path:
    return ledger.directory(run.id) / STATE
