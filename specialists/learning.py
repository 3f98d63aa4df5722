"""A run with gradients: the start is opened, parity is tried, the stage's objective is fitted, and what came of it
becomes a context of the model that is served."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clients.blocking import Client
from specialists import curves, parity
from specialists.bases import LocalModel, fingerprint_of, refuse_another, state_of
from specialists.data import Data
from specialists.folder import Specialist
from specialists.grammars import grammar_of
from specialists.ledger import STATE, Ledger, Run
from specialists.objective import Teaching, objective_of
from specialists.promotion import head_of, is_there
from specialists.rewards import Reward
from specialists.samples import Asked
from specialists.settings import Settings
from ssmprov import durable
from ssmprov.errors import BadRequest, Cancelled, Conflict, NoSpace, NotFound, WrongModel
from ssmprov.statefile import MAX_BYTES, Origin, read_state, write_state
from training.checkpoint import NAME as CHECKPOINT
from training.fit import Curve, Fit, FitError, OfAnotherRun, fit
from training.methods import Trace
from training.opening import open_policy
from training.policy import Kind, Policy, PolicyError, Start

SHOWN_POINTS = 400
FIRST_TURN = 1
"""A tuned state has read no turn: the first question to it is turn 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """All that a run with gradients needs. `start` is the run that is gone on from, None for the model itself."""

    one: Specialist
    client: Client
    local: LocalModel
    run: Run
    settings: Settings
    data: Data
    start: Run | None

    @property
    def directory(self) -> Path:
        return self.one.ledger.directory(self.run.id)

    @property
    def name(self) -> str:
        """That of the context which the run makes."""
        return f"{self.one.names}/{self.run.id}"

    def kept_name(self, step: int) -> str:
        return f"{self.name}-step-{step}"

    @property
    def asked(self) -> Asked:
        return Asked(FIRST_TURN, self.one.plan.roles)

    @property
    def pairs(self) -> Path | None:
        return self.one.path / self.settings.pairs if self.settings.pairs else None

    def identity(self, policy: Policy) -> str:
        """What is being learnt from what: a checkpoint of anything else is not gone on with."""
        contract, given = self.one.contract, self.pairs
        told = (
            self.run.seed,
            self.settings,
            policy.base.fingerprint,
            self.start.made if self.start else "",
            self.one.plan.roles,
            contract.scorer,
            contract.starts,
            self.data.parts,
            hashlib.sha256(given.read_bytes()).hexdigest() if given and given.is_file() else "",
        )
        return f"{self.run.id} {hashlib.sha256(msgspec.json.encode(told)).hexdigest()}"

    def open(self) -> Policy:
        """The policy as the run begins it.

        Raises BadRequest, NotFound where the state to begin with is gone, WrongModel where another model made it.
        """
        given = None
        if self.start is not None:
            path = state_of(self.one.ledger, self.start)
            if not path.is_file():
                raise NotFound(
                    f"{path} does not exist: start from another run, or from the model itself (`--from none`)"
                )
            state = read_state(path)
            self._refuse_foreign(self.start, state.origin.fingerprint)
            given = Start(state.arrays, state.weights)
        try:
            kind: Kind = "tune" if self.run.kind == "tune" else "train"
            local = self.local
            return open_policy(local.architecture, local.path, kind, given, scan=local.scan, pos_mode=local.pos_mode)
        except PolicyError as error:
            raise BadRequest(str(error)) from None

    def _refuse_foreign(self, start: Run, made_by: str) -> None:
        served = fingerprint_of(self.client, self.run.model)
        if made_by != served:
            raise WrongModel(
                f"the run {start.id} was made with the model {made_by[:12]}, but {self.run.model} is served with "
                f"{served[:12]} now: start from a run of that model, or from the model itself (`--from none`)",
                made_by=made_by,
                needed=served,
            )

    def teaching(self, policy: Policy) -> Teaching:
        one, plan = self.one, self.one.plan
        return Teaching(
            policy=policy,
            stage=self.run.stage,
            data=self.data,
            asked=self.asked,
            settings=self.settings,
            seed=self.run.seed,
            reward=Reward(one.contract),
            grammar=grammar_of(plan.track),
            pairs=self.pairs,
            ascii=plan.data.ascii,
        )


def learn(
    learner: Learner,
    *,
    skip_parity: bool,
    stopping: Callable[[], bool],
    said: Callable[[int, float], None],
    told: Callable[[str], None],
) -> None:
    """Run to the end, or from the last step on where the run's folder holds one; the run's fields are filled in.

    Raises Refused where parity fails, Cancelled where it is stopped, BadRequest for rows that cannot be learnt from or
    numbers that are none, NoSpace.
    """
    run, settings = learner.run, learner.settings
    if run.model != learner.local.model:
        raise BadRequest(
            f"the run {run.id} used the model {run.model}, but the plan names {learner.local.model} now: put the plan "
            "back, or start a new run without --resume"
        )
    policy = learner.open()
    refuse_another(learner.client, learner.local, policy.base.fingerprint)
    if (size := sum(4 * tensor.numel() for tensor in policy.tensors.values())) > MAX_BYTES:
        raise BadRequest(
            f"{learner.local.path} has {size} bytes of weights, but a context can carry at most {MAX_BYTES}: tune its "
            "state instead (`ssmprov specialist tune`)"
        )
    stage = objective_of(learner.teaching(policy))
    if stage.oversize:
        told(
            f"{len(stage.oversize)} rows are longer than {stage.longest} tokens and are left out: the first is in line "
            f"{stage.oversize[0]}"
        )
    run.settings |= {"reply_tokens": stage.reply_tokens, "oversize": len(stage.oversize), "fill": stage.fill}
    run.tokens = stage.tokens
    _clear_scratch(learner)
    if not skip_parity:
        _try_parity(learner, policy, _until(stopping, told))
    patience = settings.patience if stage.check else 0
    try:
        fitted = fit(
            policy,
            stage.loss,
            Fit(
                steps=settings.steps,
                rate=settings.rate,
                check_every=settings.check_every,
                patience=patience,
                save_every_s=settings.save_every_s,
                whole=stage.whole,
            ),
            learner.directory,
            identity=learner.identity(policy),
            check=stage.check,
            asked_to_stop=stopping,
            said=_keeping(learner, policy, said) if settings.keep_every else said,
        )
    except OfAnotherRun:
        raise BadRequest(
            f"the run {run.id} cannot continue: the model, its rows, their split, the pairs, roles or scorer have "
            "changed since it started. Put them back, or start a new run without --resume"
        ) from None
    except FitError as error:
        raise (NoSpace if isinstance(error.__cause__, OSError) else BadRequest)(str(error)) from None
    durable.replace(
        learner.directory / curves.FILE,
        msgspec.json.encode(curve_of(fitted.curve, getattr(stage.loss, "trace", {}))) + b"\n",
    )
    run.steps, run.loss = fitted.step, summary_of(fitted.curve)
    run.settings["stopped"] = fitted.stopped
    if fitted.stopped == "asked":
        raise Cancelled(f"stopped at step {fitted.step} of {settings.steps}: --resume continues it")
    run.made = _put(learner, policy, learner.directory / STATE, learner.name)
    for step in range(settings.keep_every, fitted.step, settings.keep_every) if settings.keep_every else ():
        if kept := head_of(learner.client, run.model, learner.kept_name(step)):  # unless somebody took it away
            run.kept[str(step)] = kept


def forget(ledger: Ledger) -> None:
    """Delete the checkpoints of runs that are completed, by the ledger: nobody resumes them."""
    for run in ledger.runs():
        if run.status == "completed":
            (ledger.directory(run.id) / CHECKPOINT).unlink(missing_ok=True)


def _clear_scratch(learner: Learner) -> None:
    """Take away the names that the parity gate of a killed run has left. This run is the specialist's only one."""
    client, model = learner.client, learner.run.model
    while names := [row.name for row in client.ls(f"{learner.one.names}/parity/", model=model).rows]:
        client.rm(names, model=model)


def _try_parity(learner: Learner, policy: Policy, told: Callable[[str], None]) -> None:
    """Hold the policy against the context that is served for the same start.

    That of a tuned state is imported for the time: it may begin with a token read, where the model has read nothing.
    """
    run, client = learner.run, learner.client
    scratch = f"{learner.one.names}/parity/{run.id}"
    reference, imported = f"#{learner.start.made}" if learner.start else "", ""
    if run.kind == "tune":
        _write(learner.directory / STATE, policy)
        imported = f"{scratch}/start"
        reference = f"#{client.import_(learner.directory / STATE, imported, model=run.model).object}"
        (learner.directory / STATE).unlink()
    elif learner.start and not is_there(client, run.model, learner.start.made):  # somebody has collected it
        imported = f"{scratch}/start"
        client.import_(state_of(learner.one.ledger, learner.start), imported, model=run.model)
    try:
        subject = parity.Subject(
            policy=policy, client=client, model=run.model, reference=reference, asked=learner.asked, scratch=scratch
        )
        parity.gate(learner.one.path, subject, run.kind, told)
    finally:
        if imported:
            client.rm([imported], model=run.model)


def _until(stopping: Callable[[], bool], told: Callable[[str], None]) -> Callable[[str], None]:
    """What the gate tells of each check; the next one is not begun once somebody has asked for the end."""

    def tell(text: str) -> None:
        told(text)
        if stopping():
            raise Cancelled("stopped in the parity gate: nothing was trained")

    return tell


def _write(path: Path, policy: Policy) -> None:
    arrays = policy.arrays()
    tokens = int(arrays["t"][0]) if "t" in arrays else 0
    origin = Origin(policy.base.fingerprint, policy.base.architecture, policy.base.layout, tokens)
    write_state(path, arrays, origin, policy.weights())


def _keeping(learner: Learner, policy: Policy, said: Callable[[int, float], None]) -> Callable[[int, float], None]:
    """What a run tells of each step, and every so many of them a context of what there is."""

    def kept(step: int, loss: float) -> None:
        said(step, loss)
        if step % learner.settings.keep_every == 0 and step < learner.settings.steps:
            path = learner.directory / "kept.safetensors"
            try:
                _put(learner, policy, path, learner.kept_name(step))
            finally:
                path.unlink(missing_ok=True)

    return kept


def _put(learner: Learner, policy: Policy, path: Path, name: str) -> str:
    """Write what there is to a file, and import it as a context of its own; its object."""
    _write(path, policy)
    try:
        return learner.client.import_(path, name, model=learner.run.model).object
    except Conflict:  # the run had come that far when its process was killed: its name is nobody else's
        return head_of(learner.client, learner.run.model, name)


def curve_of(curve: Curve, trace: Trace) -> dict[str, list[tuple[int, float]]]:
    """Points (step, value) of the objective, of its validation, and of what it told beside: `SHOWN_POINTS` at most of
    each, the mean of the steps up to it."""
    told = {name: list(enumerate(values, 1)) for name, values in trace.items()}
    return {"training": _thinned(curve.training), "validation": _thinned(curve.validation)} | {
        name: _thinned(points) for name, points in told.items()
    }


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    width = max(1, -(-len(points) // SHOWN_POINTS))
    parts = [points[at : at + width] for at in range(0, len(points), width)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def summary_of(curve: Curve) -> dict[str, float]:
    """First, final and least value of a curve, the step of the least one, the trend, and the best of validation."""
    if not curve.training:
        return {}
    step, least = min(curve.training, key=lambda point: point[1])
    found = {"first": curve.training[0][1], "final": curve.training[-1][1], "least": least, "least_step": float(step),
             "trend": curve.trend}  # fmt: skip
    if curve.validation:
        found["validation"] = min(value for _, value in curve.validation)
    return {name: round(value, 6) for name, value in found.items()}
