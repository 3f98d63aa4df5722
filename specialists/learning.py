"""A run with gradients: opens the start, runs the parity gate, fits the stage's objective, and imports the result as a
context of the served model."""

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
from ssmprov.causes import cause_of
from ssmprov.errors import BadRequest, Cancelled, Conflict, NotFound, WrongModel
from ssmprov.statefile import MAX_BYTES, Origin, read_state, write_state
from training.checkpoint import NAME as CHECKPOINT
from training.fit import Curve, Fit, FitError, OfAnotherRun, fit
from training.methods import Trace
from training.opening import open_policy
from training.policy import Kind, Policy, PolicyError, Start

SHOWN_POINTS = 400
FIRST_TURN = 1
"""A tuned state has not read any turns, so the first question to it is turn 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """Everything that a run with gradients needs. `start` is the run to continue from; None means the model itself."""

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
        """The name of the context that the run makes."""
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
        """Identifies what is learnt from what. The run does not continue from a checkpoint with another identity."""
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
        """The policy at the start of the run.

        Raises BadRequest, NotFound if the state to start from is gone, and WrongModel if another model made it.
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
                f"the run {start.id} was made with the model {made_by[:12]}, but the workers of {self.run.model} now "
                f"serve {served[:12]}: start from a run of that model, or from the model itself (`--from none`)",
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
    """Run to the end, starting from the checkpoint in the run's folder if there is one. Fills in the run's fields.

    Raises Refused if parity fails, Cancelled if it is stopped, BadRequest if the rows cannot be learnt from or numbers
    become NaN or infinite, and NoSpace.
    """
    run, settings = learner.run, learner.settings
    if run.model != learner.local.model:
        raise BadRequest(
            f"the run {run.id} used the model {run.model}, but the plan now names {learner.local.model}: change the "
            "plan back, or start a new run without --resume"
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
            f"{len(stage.oversize)} rows have more than {stage.longest} tokens and are left out; the first one is in "
            f"line {stage.oversize[0]}"
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
            "changed since it started. Change them back, or start a new run without --resume"
        ) from None
    except FitError as error:
        cause = error.__cause__
        raise (cause_of(cause).error if isinstance(cause, OSError) else BadRequest)(str(error)) from None
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
        if kept := head_of(learner.client, run.model, learner.kept_name(step)):  # unless somebody removed it
            run.kept[str(step)] = kept


def forget(ledger: Ledger) -> None:
    """Delete the checkpoints of runs that the ledger lists as completed, since they can't be resumed."""
    for run in ledger.runs():
        if run.status == "completed":
            (ledger.directory(run.id) / CHECKPOINT).unlink(missing_ok=True)


def _clear_scratch(learner: Learner) -> None:
    """Remove names that the parity gate of a killed run left behind. No other run of this specialist is in progress."""
    client, model = learner.client, learner.run.model
    while names := [row.name for row in client.ls(f"{learner.one.names}/parity/", model=model).rows]:
        client.rm(names, model=model)


def _try_parity(learner: Learner, policy: Policy, told: Callable[[str], None]) -> None:
    """Compare the policy with the served context that has the same start.

    For a tuned state, that context is imported temporarily, because the start may have read a token already.
    """
    run, client = learner.run, learner.client
    scratch = f"{learner.one.names}/parity/{run.id}"
    reference, imported = f"#{learner.start.made}" if learner.start else "", ""
    if run.kind == "tune":
        _write(learner.directory / STATE, policy)
        imported = f"{scratch}/start"
        reference = f"#{client.import_(learner.directory / STATE, imported, model=run.model).object}"
        (learner.directory / STATE).unlink()
    elif learner.start and not is_there(client, run.model, learner.start.made):  # garbage collection removed it
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
    """Wraps `told` for the gate's checks. After a request to stop, it raises Cancelled before the next check."""

    def tell(text: str) -> None:
        told(text)
        if stopping():
            raise Cancelled("stopped during the parity gate: nothing was trained")

    return tell


def _write(path: Path, policy: Policy) -> None:
    arrays = policy.arrays()
    tokens = int(arrays["t"][0]) if "t" in arrays else 0
    origin = Origin(policy.base.fingerprint, policy.base.architecture, policy.base.layout, tokens)
    write_state(path, arrays, origin, policy.weights())


def _keeping(learner: Learner, policy: Policy, said: Callable[[int, float], None]) -> Callable[[int, float], None]:
    """Wraps `said` for the run's steps. Every `keep_every` steps it also saves the current result as a context."""

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
    """Write the current result to a file, and import it as a new context. Returns the context's object."""
    _write(path, policy)
    try:
        return learner.client.import_(path, name, model=learner.run.model).object
    except Conflict:  # an earlier process of this run imported it before it was killed
        return head_of(learner.client, learner.run.model, name)


def curve_of(curve: Curve, trace: Trace) -> dict[str, list[tuple[int, float]]]:
    """The points (step, value) of the objective, of its validation and of its trace.

    Each curve has at most `SHOWN_POINTS` points. A point is the mean of the steps since the previous one.
    """
    told = {name: list(enumerate(values, 1)) for name, values in trace.items()}
    return {"training": _thinned(curve.training), "validation": _thinned(curve.validation)} | {
        name: _thinned(points) for name, points in told.items()
    }


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    width = max(1, -(-len(points) // SHOWN_POINTS))
    parts = [points[at : at + width] for at in range(0, len(points), width)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def summary_of(curve: Curve) -> dict[str, float]:
    """The first, final and smallest value of a curve, the step of the smallest, the trend, and the best validation."""
    if not curve.training:
        return {}
    step, least = min(curve.training, key=lambda point: point[1])
    found = {"first": curve.training[0][1], "final": curve.training[-1][1], "least": least, "least_step": float(step),
             "trend": curve.trend}  # fmt: skip
    if curve.validation:
        found["validation"] = min(value for _, value in curve.validation)
    return {name: round(value, 6) for name, value in found.items()}
