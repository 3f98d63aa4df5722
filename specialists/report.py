"""One HTML page about how a specialist was made. It is self-contained: it runs no scripts and needs no network.

Answers are shown as text. A drawing is drawn only from what our own parser accepted: known elements with known
attributes, which are written again.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from specialists.curves import chart, read_curves
from specialists.folder import Specialist
from specialists.ledger import Event, Run
from specialists.matrix import read_matrix
from specialists.promotion import standing_of
from specialists.scorers.xml import parse

FILE = "report.html"
SIZE = 96
"""The size of a drawing in pixels."""

DRAWN = {
    "svg": ("viewBox",),
    "g": (),
    "circle": ("cx", "cy", "r"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "rect": ("x", "y", "width", "height"),
    "line": ("x1", "y1", "x2", "y2"),
    "polygon": ("points",),
}
PAINTS = ("fill", "stroke")
_NUMBERS = re.compile(r"[-+0-9., eE]{1,400}\Z")
_PAINT = re.compile(r"(?:none|#[0-9a-fA-F]{3,8}|[a-z]{3,20})\Z")

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #197a3f; --bad: #b3261e; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .3rem .6rem; vertical-align: top;
border-bottom: 1px solid var(--line); } td.number { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: var(--good); } .bad { color: var(--bad); } code, pre { font: 13px/1.4 ui-monospace, monospace; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; } .drawing { background: #fff; border: 1px solid
var(--line); } .quiet { opacity: .7; }
.curve { display: block; max-width: 100%; height: auto; }
.axis { font: 12px system-ui, sans-serif; fill: currentColor; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(one: Specialist) -> str:
    """The whole page."""
    ledger = one.ledger
    runs, events, standing = ledger.runs(), ledger.events(), standing_of(ledger)
    entries = read_matrix(one.path).entries
    promoted = (
        f"<p><b>{_text(one.plan.public)}</b> points to the run <code>{_text(standing.run)}</code> "
        f"({_text(standing.at)}){', by force' if standing.details.get('forced') else ''}.</p>"
        if standing
        else f"<p>No run has been promoted to <b>{_text(one.plan.public)}</b>.</p>"
    )
    title = f"Specialist {one.plan.name}"
    body = [
        f"<h1>{_text(title)}</h1><p class=quiet>track {_text(one.plan.track)}, model {_text(one.plan.model)}</p>",
        promoted,
        "<h2>Runs</h2>",
        _runs(runs, entries),
        "<h2>Lineage</h2>",
        _lineage(one, runs, standing.run if standing else ""),
        *(section for run in runs for section in _sections(one, run, entries)),
        "<h2>History</h2>",
        _events(events),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"{''.join(body)}</body></html>\n"
    )


def _runs(runs: Sequence[Run], entries: dict[str, dict[str, Any]]) -> str:
    if not runs:
        return "<p>None yet.</p>"
    rows = []
    for run in runs:
        gate = entries.get(run.id, {}).get("gate")
        passed = "" if gate is None else _verdict(all(check["passed"] for check in gate))
        rows.append(
            (
                f"<code>{_text(run.id)}</code>",
                _text(run.label),
                _text(run.kind),
                _text(run.status) + (f" <span class=quiet>{_text(run.why)}</span>" if run.why else ""),
                f"{run.tokens:,}",
                passed,
                f"<code>{_text(run.made[:12])}</code>",
            )
        )
    return _table(("run", "stage", "kind", "status", "tokens", "gate", "checkpoint"), rows)


def _lineage(one: Specialist, runs: Sequence[Run], promoted: str) -> str:
    """Each run below the run from which it continued, with the model at the top."""
    below: dict[str, list[Run]] = {}
    for run in runs:
        below.setdefault(run.parent, []).append(run)

    def items(parent: str) -> str:
        found = "".join(
            f"<li><code>{_text(run.id)}</code> {_text(run.label)}, {_text(run.kind)}, {_text(run.status)}"
            f"{f' <b>{_text(one.plan.public)}</b>' if run.id == promoted else ''}{items(run.id)}</li>"
            for run in below.get(parent, ())
        )
        return f"<ul>{found}</ul>" if found else ""

    return f"<ul><li>{_text(one.plan.model)}{items('')}</li></ul>" if runs else "<p>None yet.</p>"


def _sections(one: Specialist, run: Run, entries: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The sections about a run: its title, its curves, and the evaluations of its contexts."""
    curves, entry = read_curves(one.ledger.directory(run.id)), entries.get(run.id)
    kept = [(step, entries[key]) for step in run.kept if (key := f"{run.id}:{step}") in entries]
    if not curves and entry is None:
        return
    yield f"<h2>{_text(run.label)} <code class=quiet>{_text(run.id)}</code></h2>"
    if curves:
        told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in run.loss.items())
        yield f"<p>{run.steps:,} steps: {_text(told)}</p>{chart(curves)}"
    for step, found in kept:
        yield f"<h3>At step {_text(step)}</h3>{_evaluation(one, found)}"
    if entry is not None:
        yield _evaluation(one, entry)


def _evaluation(one: Specialist, entry: dict[str, Any]) -> str:
    least = {check["metric"]: check for check in entry["gate"]}
    metrics = [
        (
            _text(metric),
            _number(value),
            _number(least[metric]["least"]) if metric in least else "",
            _verdict(least[metric]["passed"]) if metric in least else "",
        )
        for metric, value in entry["metrics"].items()
    ]
    risks = [(_text(r["name"]), _verdict(r["passed"]), _text(r["why"])) for r in entry["risks"]]
    probes = [_probe(one.plan.track, probe) for probe in entry["probes"]]
    return (
        _table(("metric", "value", "at least", "gate"), metrics)
        + "<h3>Risks</h3>"
        + _table(("risk", "", "what happened"), risks)
        + "<h3>Probes</h3>"
        + _table(("probe", "prompt", "answer", "drawing" if one.plan.track == "svg" else "", ""), probes)
    )


def _probe(track: str, probe: dict[str, Any]) -> tuple[str, ...]:
    sample = probe["samples"][0]
    drawn = drawing(sample["answer"]) if track == "svg" else ""
    why = f"<br><span class=quiet>{_text(sample['why'])}</span>" if sample["why"] else ""
    kind = " <span class=quiet>out of distribution</span>" if probe["type"] == "ood" else ""
    return (
        f"{_text(probe['id'])}{kind}",
        f"<pre>{_text(probe['prompt'])}</pre>",
        f"<pre>{_text(sample['answer'])}</pre>{why}",
        drawn,
        _verdict(probe["passes"]),
    )


def drawing(answer: str) -> str:
    """An answer's drawing, written again from known elements and attributes; '' if the answer is not a drawing."""
    end = answer.find("</svg>")
    try:
        root = parse(answer[: end + len("</svg>")].strip())
    except ParseError:
        return ""
    return _drawn(root) if _name(root) == "svg" else ""


def _drawn(element: Element) -> str:
    name = _name(element)
    if name not in DRAWN:
        return ""
    kept = {key: element.get(key, "") for key in DRAWN[name] if _NUMBERS.match(element.get(key, ""))}
    kept |= {key: element.get(key, "") for key in PAINTS if _PAINT.match(element.get(key, ""))}
    if name == "svg":
        kept |= {"width": str(SIZE), "height": str(SIZE), "class": "drawing"}
    attributes = "".join(f' {key}="{_text(value)}"' for key, value in kept.items())
    return f"<{name}{attributes}>{''.join(map(_drawn, element))}</{name}>"


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _events(events: Sequence[Event]) -> str:
    if not events:
        return "<p>Nothing yet.</p>"
    return _table(
        ("when", "what", "run", ""),
        [
            (
                _text(event.at),
                _text(event.event.replace("_", " ")),
                f"<code>{_text(event.run)}</code>",
                _text(", ".join(f"{key} {_short(value)}" for key, value in event.details.items() if key != "metrics")),
            )
            for event in events
        ],
    )


def _short(value: object) -> str:
    text = str(value)
    return f"#{text[:12]}" if re.fullmatch("[0-9a-f]{64}", text) else text


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{header}</th>" for header in headers)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _verdict(passed: bool) -> str:
    return '<span class="good">passes</span>' if passed else '<span class="bad">fails</span>'


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _text(value: str) -> str:
    return html.escape(value, quote=True)
