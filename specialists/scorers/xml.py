"""SVG and other XML: an answer is valid if a real parser accepts all of it as a whole document."""

from __future__ import annotations

from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

from specialists.scorers.base import MAX_ANSWER, Expected, Score, text_hits
from specialists.scorers.drawing import drawing_hits

MAX_DEPTH = 64


def xml(answer: str, expected: Expected) -> Score:
    """Scores an answer of one element (`svg`, unless `starts` names another) that should show what its tags ask for."""
    starts = expected.starts or "<svg"
    text = answer.lstrip()
    prefix = text.startswith(starts)
    name = starts.lstrip("<").partition(" ")[0].rstrip(">") or "svg"
    end = _end(answer, name)
    hits = text_hits(answer, expected)
    document = text[: end - (len(answer) - len(text))] if end is not None else text
    try:
        root = parse(document)
        if root.tag.rpartition("}")[2] != name:
            raise ParseError(f"its root element is {root.tag}, not {name}")
    except ParseError as error:
        return Score(valid=False, prefix=prefix, hits=hits + drawing_hits(expected.tags, None), end=end, why=str(error))
    return Score(valid=True, prefix=prefix, hits=hits + drawing_hits(expected.tags, root), end=end)


def parse(text: str) -> Element:
    """Parses a whole document. Rejects document types, because they could expand to anything. Raises ParseError."""
    if len(text) > MAX_ANSWER:
        raise ParseError(f"it is longer than {MAX_ANSWER} characters")
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise ParseError(f"its elements are nested more than {MAX_DEPTH} levels deep")
        builder.start(name, attributes)

    def finish(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: object) -> None:
        raise ParseError("a document type is not allowed")

    parser.StartElementHandler = start
    parser.EndElementHandler = finish
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
        root = builder.close()
    except expat.ExpatError as error:
        raise ParseError(f"line {error.lineno}, column {error.offset}: {expat.ErrorString(error.code)}") from None
    except (AssertionError, ValueError) as error:
        raise ParseError(str(error)) from None
    if not isinstance(root, Element):
        raise ParseError("it has no element")
    return root


def _end(answer: str, name: str) -> int | None:
    closing = f"</{name}>"
    at = answer.find(closing)
    return None if at < 0 else at + len(closing)
