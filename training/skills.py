"""What the mini model learns: exchanges of user text and reply, facts to remember, and modes that change replies."""

from __future__ import annotations

import calendar
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from training.facts import UNKNOWN, new_fact
from training.questions import KNOWN, QUESTIONS
from training.words import CONTROL, Words

DAYS = list(calendar.day_name)
MONTHS = list(calendar.month_name)[1:]
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One user text and the reply to it. `skill` names what it practises."""

    skill: str
    text: str
    reply: str


REPEAT = (
    "Repeat: {}",
    "Repeat: {}",
    "Repeat {}",
    "Say: {}",
    "Echo: {}",
    "Please repeat: {}",
    "Repeat after me: {}",
    "Copy this: {}",
)
UPPER = ("Upper: {}", "Upper: {}", "Upper case: {}", "Shout: {}", "In capitals: {}", "Capitals: {}")
LOWER = ("Lower: {}", "Lower case: {}", "Whisper: {}", "In small letters: {}")


def any_case(rng: Random, ask: str) -> str:
    """A request as people type it: as it is, or in small letters or in capitals."""
    return rng.choices((ask, ask.lower(), ask.upper()), (0.8, 0.15, 0.05))[0]


def repeat(words: Words) -> Exchange:
    text = words.rng.choices((words.text(), words.plain(1, 8), words.plain(6, 12)), (0.25, 0.45, 0.3))[0]
    return Exchange("repeat", any_case(words.rng, words.rng.choice(REPEAT)).format(text), text)


def times(words: Words) -> Exchange:
    word, count = words.word(), words.rng.randint(2, 4)
    return Exchange("times", f"Say {word} {count} times.", " ".join([word] * count))


def _cased(words: Words) -> str:
    text = words.plain(1, 8) if words.rng.random() < 0.6 else words.phrase()
    return words.rng.choices((text, text.upper(), text.capitalize(), text.title()), (0.6, 0.1, 0.2, 0.1))[0]


def upper(words: Words) -> Exchange:
    text = _cased(words)
    return Exchange("upper", any_case(words.rng, words.rng.choice(UPPER)).format(text), text.upper())


def lower(words: Words) -> Exchange:
    text = _cased(words)
    text = text.upper() if words.rng.random() < 0.6 else text
    return Exchange("lower", any_case(words.rng, words.rng.choice(LOWER)).format(text), text.lower())


def reverse(words: Words) -> Exchange:
    between = words.rng.choice((" ", ", "))
    items = words.plain(2, 5).split()
    return Exchange("reverse", f"Reverse: {between.join(items)}", between.join(reversed(items)))


def carry_on(words: Words) -> Exchange:
    """A list of three items, and the three that follow."""
    kind = words.rng.choice(("numbers", "numbers", "letters", "days", "months", "down", "tens"))
    if kind == "numbers":
        start, step = words.rng.randrange(10 ** words.rng.randint(1, 3)), 1
    elif kind == "down":
        start, step = words.rng.randrange(6, 100), -1
    else:
        start, step = 10 * words.rng.randrange(1, 20), 10
    items = [str(start + step * i) for i in range(6)]
    ring = {"letters": LETTERS, "days": DAYS, "months": MONTHS}.get(kind)
    if ring:
        first = words.rng.randrange(len(ring))
        items = [ring[(first + i) % len(ring)] for i in range(6)]
    return Exchange("continue", f"Continue: {', '.join(items[:3])}", ", ".join(items[3:]))


def pick_word(words: Words) -> Exchange:
    items = [words.word() for _ in range(words.rng.randint(2, 5))]
    which, at = words.rng.choice((("First", 0), ("Last", -1)))
    return Exchange("pick", f"{which} word: {' '.join(items)}", items[at])


def answer(words: Words) -> Exchange:
    """A question whose answer the model knows by heart, in one of its wordings, sometimes typed carelessly."""
    known = words.rng.choice(KNOWN)
    question = known.questions[0] if words.rng.random() < 0.4 else words.rng.choice(known.questions)
    if words.rng.random() < 0.08:
        question = words.rng.choice((question.lower(), question.rstrip("?.!")))
    return Exchange("answer", question, known.answer)


def remark(words: Words) -> Exchange:
    """Any other text is repeated, so that the model has a reply to everything."""
    text = words.sentence()
    return Exchange("remark", text, f"You said: {text}")


def json_fields(words: Words) -> Exchange:
    """A sentence, and two of its facts as JSON."""
    pick, fields = words.rng.choice, {"name": words.name(), "colour": words.colour(), "thing": words.noun()}
    told = "{name} has a {colour} {thing}."
    draw = words.rng.random()
    if draw < 0.3:
        fields |= {"place": words.place()}
        told = pick(
            ("{name} saw a {colour} {thing} in the {place}.", "The {colour} {thing} of {name} is in the {place}.")
        )
    elif draw < 0.5:
        fields = {"name": words.name(), "town": words.word().capitalize(), "age": str(words.rng.randrange(2, 100))}
        told = "{name} lives in {town} and is {age} years old."
    asked = words.rng.sample(list(fields), 2)
    ask = pick(("JSON with {} and {}: ", "JSON with {} and {}: ", "Give {} and {} as JSON: ", "As JSON, {} and {}: "))
    reply = json.dumps({field: fields[field] for field in asked})
    return Exchange("json", ask.format(*asked) + told.format(**fields), reply)


def not_known(words: Words) -> Exchange:
    """A question about something that nobody has told."""
    ask = words.rng.choice(("What is a {}?", "What is {}?", "Who is {}?", "Why is the {} here?", "When was {} made?"))
    question = ask.format(words.name() if "Who" in ask else words.word())
    return not_known(words) if question in QUESTIONS else Exchange("not known", question, UNKNOWN)


SKILLS: dict[Callable[[Words], Exchange], float] = {
    repeat: 6.0,
    times: 0.6,
    upper: 2.5,
    lower: 0.8,
    reverse: 2.2,
    carry_on: 3.0,
    pick_word: 0.6,
    answer: 5.0,
    remark: 1.0,
    json_fields: 4.0,
    not_known: 0.7,
}


def any_skill(words: Words) -> Exchange:
    return words.rng.choices(list(SKILLS), list(SKILLS.values()))[0](words)


@dataclass(slots=True, kw_only=True)
class Mode:
    """A mode that an earlier turn has set. It determines how every later user turn is answered."""

    kind: str
    order: str
    confirmed: str
    name: str = ""
    count: int = 0

    def exchange(self, words: Words) -> Exchange:
        """A user turn and the reply that the mode asks for."""
        text = _said(words)
        skill = f"mode {self.kind}"
        match self.kind:
            case "echo":
                return Exchange(skill, text, text)
            case "shouter":
                return Exchange(skill, text, text.upper())
            case "whisperer":
                text = text.upper() if words.rng.random() < 0.5 else text
                return Exchange(skill, text, text.lower())
            case "quoter":
                return Exchange(skill, text, quoted(text))
            case "announcer":
                return Exchange(skill, text, f"{self.name} says: {text}")
            case "reverser":
                items = words.plain(2, 5).split()
                return Exchange(skill, " ".join(items), " ".join(reversed(items)))
            case "counter":
                text = words.rng.choice(CONTROL) if words.rng.random() < 0.5 else text
                self.count += 1
                return Exchange(skill, text, str(self.count - 1))
            case _:
                who, said = _introduction(words)
                if words.rng.random() < 0.25:
                    return Exchange(skill, text, f"Hello. I am {self.name}.")
                return Exchange(skill, said, f"Hello, {who}. I am {self.name}.")


def _introduction(words: Words) -> tuple[str, str]:
    """A name, and a sentence with which somebody introduces themselves by that name."""
    who = words.name()
    said = words.rng.choice(("I am {}.", "I am {}.", "My name is {}.", "This is {}.", "{} here."))
    return who, said.format(who)


def _said(words: Words) -> str:
    """What a user may say in any mode: some of it has a meaning outside the mode, some does not."""
    draw = words.rng.random()
    if draw < 0.2:
        return any_skill(words).text
    if draw < 0.35:
        return _introduction(words)[1]
    if draw < 0.45:
        fact = new_fact(words)
        return words.rng.choice((fact.told, fact.asked))
    return words.text()


MODES = ("echo", "shouter", "whisperer", "quoter", "announcer", "reverser", "counter", "greeter")
TAILS = {
    "echo": (
        "Repeat what the user says.",
        "Repeat every turn word for word.",
        "Say what you hear.",
        "Give each text back unchanged.",
    ),
    "shouter": (
        "Answer in capitals.",
        "Repeat everything in capital letters.",
        "Say what you hear, but loud.",
        "Use upper case only.",
    ),
    "whisperer": ("Repeat everything in small letters.", "Use lower case only.", "Say what you hear, but low."),
    "quoter": ("Quote what the user says.", "Put a mark before each line.", "Give each text back as a quotation."),
    "reverser": ("Turn the words around.", "Say the last word first."),
    "announcer": ("Announce what the user says.", "Say who is speaking first."),
    "greeter": ("Greet everyone who comes.", "Say hello to the user.", "Welcome each user by name."),
    "counter": ("Say the next number each time.", "Count one on in every turn.", "Answer with numbers only."),
}


def new_mode(words: Words, kind: str | None = None) -> Mode:
    kind = kind or words.rng.choice(MODES)
    article = "an" if kind[0] in "ae" else "a"
    name = words.name() if kind in ("announcer", "greeter") else ""
    count = words.rng.randrange(10 ** words.rng.choice((1, 1, 2, 3))) if kind == "counter" else 0
    what = f"{article} {kind}" + (f" named {name}" if name else "")
    order = words.rng.choice(
        ("You are {}", "You are {}", "You are {}", "You are now {}", "From now on you are {}", "Be {}")
    ).format(what)
    order += f": start at {count}." if kind == "counter" else "."
    if words.rng.random() < 0.6:
        order += " " + words.rng.choice(TAILS[kind])
    return Mode(kind=kind, order=order, confirmed=f"I am {what}.", name=name, count=count)


def quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.split("\n"))
