"""`ssmprov specialist`: make a context that does one thing well, test it, and promote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

from shell.options import complete_model, connect, json_option
from shell.tables import echo_json, echo_table
from specialists import folder, prime, promotion, report
from specialists.asking import candidate
from specialists.cli_base import STAGE, ending, number, shortened, tell_run
from specialists.cli_learn import train, tune
from specialists.evaluate import Asking, evaluate
from specialists.folder import Specialist, open_specialist
from specialists.grammars import GRAMMARS
from specialists.ledger import Event, Run, exclusive, now
from specialists.matrix import checks_of, entry_of, read_matrix, upsert
from specialists.plan import risks as risky
from specialists.risks import TOKENS as RISK_TOKENS
from specialists.risks import probe_risks
from specialists.stages import BY_PREFERENCE, Stage, judge
from ssmprov import durable
from ssmprov.configuration import home_of
from ssmprov.errors import BadRequest
from ssmprov.formatting import short

EXAMPLES = 8
MAX_TOKENS = 512


@click.group()
def specialist() -> None:
    """Make a context that does one thing well: train or prime it, test it with probes, then promote it.

    \b
    ssmprov specialist init draw --track svg --model rwkv7-mini
    ssmprov specialist check draw
    ssmprov specialist train draw
    ssmprov specialist eval draw
    ssmprov specialist promote draw
    """


def _selecting(command: Any) -> Any:
    for option in (
        click.option("--step", type=click.IntRange(1), help="Use the context that the run kept at this step."),
        click.option(
            "--pass", "stage_pass", type=click.IntRange(1), help="Use this run of the stage (default: the last)."
        ),
        click.option("--stage", type=STAGE, help="Use the last completed run of this stage."),
        click.option("--run", "run_id", default="", metavar="ID", help="Use the run with this id."),
    ):
        command = option(command)
    return command


@specialist.command("init")
@click.argument("name")
@click.option("--track", type=click.Choice(sorted(GRAMMARS)), required=True, help="What the specialist should do.")
@click.option("--model", required=True, shell_complete=complete_model, help="The model to start from.")
@click.option(
    "--public", default="", metavar="NAME", help="The name that filters use (default: the specialist's name)."
)
@click.option(
    "--rows", "count", type=click.IntRange(1, 1_000_000), default=2000, show_default=True, help="How many rows to make."
)
@click.option("--data", type=click.Path(path_type=Path), help="A file with your own rows (default: the track's rows).")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True, help="Seed of rows and runs.")
def init(name: str, track: str, model: str, public: str, count: int, data: Path | None, seed: int) -> None:
    """Make the folder specialists/NAME with a plan to edit, rows, and a contract with probes."""
    made = folder.init(
        home_of(), name, track, model, public or name, count=count, seed=seed, examples=EXAMPLES, rows=data
    )
    click.echo(str(made.path))


@specialist.command("check")
@click.argument("name")
@click.option("--stage", type=STAGE, default="stage_a", show_default=True, help="The stage whose rows to check.")
@json_option
def check(name: str, stage: Stage, as_json: bool) -> None:
    """Check the format of the rows, split them, and set aside those whose prompts are used by probes."""
    found = open_specialist(home_of(), name).data(stage)
    if as_json:
        echo_json(found.summary)
        return
    for file in found.reports:
        click.echo(f"{file.path}: {file.rows} rows, {file.bytes} bytes, {file.repeated} repeated")
    echo_table(("PART", "ROWS"), [(part, len(rows)) for part, rows in found.parts.items()])
    click.echo(f"{found.held_out} rows are set aside because a probe uses their prompt", err=True)


@specialist.command("prime")
@click.argument("name")
@click.option("--stage", type=STAGE, default="stage_a", show_default=True, help="The stage whose rows to read.")
@click.option("--examples", type=click.IntRange(1), help="How many rows to read (default: the plan's number).")
@json_option
def prime_(name: str, stage: Stage, examples: int | None, as_json: bool) -> None:
    """Read training rows into a context through the broker; it works with every runtime."""
    one = open_specialist(home_of(), name)
    with exclusive(one.path):
        data = one.data(stage)
        count = examples or one.plan.stage(stage).examples or EXAMPLES
        rows = data.parts["train"][:count]
        run = one.ledger.begin(
            kind="prime",
            stage=stage,
            seed=one.plan.seed,
            model=one.plan.model,
            data=data.summary,
            settings={"examples": len(rows), "roles": list(one.plan.roles)},
            options=risky(one.plan, one.contract.temperature),
        )
        with one.ledger.alive(run.id), ending(one, run), connect() as client:
            primed = prime.prime(client, run.model, f"{one.names}/{run.id}", rows, one.plan.roles, run.id)
            run.made, run.tokens = primed.object, primed.tokens
    tell_run(run, as_json)


@specialist.command("eval")
@click.argument("name")
@_selecting
@json_option
def eval_(name: str, run_id: str, stage: Stage | None, stage_pass: int | None, step: int | None, as_json: bool) -> None:
    """Ask a run's context every probe of the contract through the broker, and score the answers."""
    one = open_specialist(home_of(), name)
    run = _selected(one, run_id, stage, stage_pass, step)
    measured = run.settings.get("reply_tokens")
    budget = one.plan.eval.max_tokens or one.contract.max_tokens or measured or MAX_TOKENS
    with exclusive(one.path), connect() as client:
        promotion.refuse_gone(client, run, one.ledger.directory(run.id))
        who = candidate(client, run.model, f"#{run.made}", one.plan.roles)
        asking = Asking(budget, one.plan.seed, one.contract.temperature)
        with tqdm(total=len(one.contract.probe) * one.contract.samples, unit="answer", disable=None) as bar:
            evaluation = evaluate(client, who, one.contract, asking, lambda *_: bar.update())
        if run.stage in BY_PREFERENCE:
            evaluation.metrics["objective_trend"] = run.loss.get("trend")
        found = probe_risks(client, who, one.contract, one.plan.seed, max(RISK_TOKENS, measured or 0))
        checks = judge(run.stage, evaluation.metrics, one.gates)
        entry = entry_of(run, one.contract, one.contract_digest, evaluation, found, budget, checks)
        upsert(one.path, run, entry)
        one.ledger.append(Event(event="evaluated", run=run.id, at=now(), details={"metrics": evaluation.metrics}))
        one.materialise()
    if as_json:
        echo_json(entry)
        return
    echo_table(
        ("METRIC", "VALUE", "GATE", ""),
        [
            (metric, number(value), *next(((number(c.least), "passes" if c.passed else "fails")
             for c in checks if c.metric == metric), ("", "")))
            for metric, value in evaluation.metrics.items()
        ],
    )  # fmt: skip
    echo_table(("RISK", "", "WHY"), [(risk.name, "passes" if risk.passed else "fails", risk.why) for risk in found])


@specialist.command("promote")
@click.argument("name")
@_selecting
@click.option("--force", is_flag=True, help="Promote a run that has not passed its gate, and note that in the ledger.")
@click.option("--dry-run", is_flag=True, help="Show what would change without changing it.")
@click.option("--list-runs", is_flag=True, help="List the runs that can be promoted.")
@json_option
def promote(
    name: str,
    run_id: str,
    stage: Stage | None,
    stage_pass: int | None,
    step: int | None,
    force: bool,
    dry_run: bool,
    list_runs: bool,
    as_json: bool,
) -> None:
    """Move the public name to a run's context if the run passes its gate."""
    one = open_specialist(home_of(), name)
    if list_runs:
        _tell_runs(one, as_json)
        return
    run = _selected(one, run_id, stage, stage_pass, step)
    with exclusive(one.path), connect() as client:
        promotion.settle(client, one.ledger)
        checks = checks_of(one.path, run, dict(one.gates), one.contract_digest)
        forced = promotion.refuse_ungated(run, checks, force=force)
        promotion.refuse_gone(client, run, one.ledger.directory(run.id))
        swap = promotion.swap_of(client, run, one.plan.public, one.names)
        if not dry_run:
            promotion.promote(client, one.ledger, run, swap, forced)
            one.materialise()
    if as_json:
        echo_json({"run": run.id, "label": run.label, "dry_run": dry_run, "forced": forced, "public": swap.public,
                   "model": swap.model, "before": swap.before, "after": swap.after})  # fmt: skip
    elif swap.before == swap.after:
        click.echo(f"{swap.model}:{swap.public} is already at {short(swap.after)} ({run.label})")
    else:
        verb = "would move" if dry_run else "moved"
        click.echo(f"{verb} {swap.model}:{swap.public} from {short(swap.before)} to {short(swap.after)} ({run.label})")


@specialist.command("rollback")
@click.argument("name")
@json_option
def rollback(name: str, as_json: bool) -> None:
    """Move the public name back to where it was before the last promotion."""
    one = open_specialist(home_of(), name)
    with exclusive(one.path), connect() as client:
        promotion.settle(client, one.ledger)
        done = promotion.rollback(client, one.ledger)
        one.materialise()
    if as_json:
        echo_json(done)
    else:
        click.echo(f"{done.details['public']} is back at {short(done.details['after'])}")


@specialist.command("report")
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the page (default: the specialist's folder).",
)
def report_(name: str, out: Path | None) -> None:
    """Write one HTML page about the runs, gates, probes and promotions. It needs no network."""
    one = open_specialist(home_of(), name)
    one.ledger.bury()
    path = out or one.path / report.FILE
    durable.replace(path, report.page(one).encode())
    click.echo(str(path))


@specialist.command("runs")
@click.argument("name")
@json_option
def runs(name: str, as_json: bool) -> None:
    """List the runs and their results."""
    one = open_specialist(home_of(), name)
    one.ledger.bury()
    _tell_runs(one, as_json)


def _selected(one: Specialist, run_id: str, stage: Stage | None, stage_pass: int | None, step: int | None) -> Run:
    if run_id and (stage or stage_pass):
        raise click.UsageError("choose a run with --run, or with --stage and --pass")
    if stage_pass and not stage:
        raise click.UsageError("--pass counts the runs of a stage: give --stage, too")
    run = one.ledger.run(run_id) if run_id else one.ledger.latest(stage, stage_pass)
    if step:
        return run.at(step)
    if not run.made:
        raise BadRequest(f"the run {run.id} is {run.status} and has no context: choose a completed run")
    return run


def _tell_runs(one: Specialist, as_json: bool) -> None:
    found, entries = one.ledger.runs(), read_matrix(one.path).entries
    standing = promotion.standing_of(one.ledger)
    if as_json:
        echo_json(found)
        return
    rows = []
    for run in found:
        checks = checks_of(one.path, run, dict(one.gates), one.contract_digest)
        gate = "passes" if checks and all(c.passed for c in checks) else "fails" if checks else ""
        promoted, _, step = standing.run.partition(":") if standing else ("", "", "")
        mark = (f"promoted, step {step}" if step else "promoted") if promoted == run.id else ""
        valid = entries.get(run.id, {}).get("metrics", {}).get("valid_rate")
        rows.append((run.id, run.label, run.kind, run.status, number(valid), gate, mark or shortened(run.why)))
    echo_table(("RUN", "STAGE", "KIND", "STATUS", "VALID", "GATE", ""), rows)


for command in (tune, train):
    specialist.add_command(command)
