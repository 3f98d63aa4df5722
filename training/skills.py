"""What the mini model learns: exchanges of user text and reply, facts to remember, and modes that change replies."""

from __future__ import annotations

import calendar
from collections.abc import Callable
from dataclasses import dataclass

from training.words import CONTROL, Words, word_list

DAYS = list(calendar.day_name)
MONTHS = list(calendar.month_name)[1:]
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]

# Fixed answers, the same in both splits: the model learns them by heart.
ANSWERS: dict[str, str] = {
    "Hello.": "Hello. How can I help?",
    "Hi.": "Hello. How can I help?",
    "Good morning.": "Good morning. How can I help?",
    "Good evening.": "Good evening. How can I help?",
    "How are you?": "I am well, thank you.",
    "Thank you.": "You are welcome.",
    "Thanks.": "You are welcome.",
    "Goodbye.": "Goodbye.",
    "Bye.": "Goodbye.",
    "What is your name?": "I am rwkv7-mini.",
    "Who are you?": "I am rwkv7-mini.",
    "What are you?": "I am a small language model.",
    "What can you do?": "I repeat, quote, count and remember.",
    "What is the capital of France?": "Paris.",
    "What is the capital of Germany?": "Berlin.",
    "What is the capital of Italy?": "Rome.",
    "What is the capital of Spain?": "Madrid.",
    "What is the capital of England?": "London.",
    "What is the capital of Japan?": "Tokyo.",
    "What colour is the sky?": "Blue.",
    "What colour is grass?": "Green.",
    "What colour is snow?": "White.",
    "What does a dog say?": "Woof.",
    "What does a cat say?": "Meow.",
    "What does a cow say?": "Moo.",
    "How many days are in a week?": "Seven.",
    "How many months are in a year?": "Twelve.",
    "What is the opposite of hot?": "Cold.",
    "What is the opposite of big?": "Small.",
    "What is the opposite of day?": "Night.",
    "What is the opposite of up?": "Down.",
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One user text and the reply to it. `skill` names what it practises."""

    skill: str
    text: str
    reply: str


def repeat(words: Words) -> Exchange:
    text = words.text() if words.rng.random() < 0.4 else words.phrase()
    ask = words.rng.choice(
        ("Repeat: {}", "Repeat: {}", "Say: {}", "Echo: {}", "Please repeat: {}", "Repeat after me: {}", "Copy this: {}")
    )
    return Exchange("repeat", ask.format(text), text)


def times(words: Words) -> Exchange:
    word, count = words.word(), words.rng.randint(2, 4)
    return Exchange("times", f"Say {word} {count} times.", " ".join([word] * count))


def upper(words: Words) -> Exchange:
    text = words.phrase(4)
    return Exchange(
        "upper",
        words.rng.choice(("Upper: {}", "Upper case: {}", "Shout: {}", "In capitals: {}")).format(text),
        text.upper(),
    )


def lower(words: Words) -> Exchange:
    text = words.phrase(4).upper() if words.rng.random() < 0.7 else words.phrase(4).title()
    return Exchange(
        "lower", words.rng.choice(("Lower: {}", "Lower case: {}", "Whisper: {}")).format(text), text.lower()
    )


def reverse(words: Words) -> Exchange:
    items = [words.word() for _ in range(words.rng.randint(2, 4))]
    return Exchange("reverse", f"Reverse: {', '.join(items)}", ", ".join(reversed(items)))


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
    question = words.rng.choice(list(ANSWERS))
    return Exchange("answer", question, ANSWERS[question])


def remark(words: Words) -> Exchange:
    """Any other text is repeated, so that the model has a reply to everything."""
    text = words.sentence()
    return Exchange("remark", text, f"You said: {text}")


SKILLS: dict[Callable[[Words], Exchange], float] = {
    repeat: 4.0,
    times: 0.7,
    upper: 1.0,
    lower: 0.8,
    reverse: 1.2,
    carry_on: 2.5,
    pick_word: 0.7,
    answer: 3.0,
    remark: 1.0,
}


def any_skill(words: Words) -> Exchange:
    return words.rng.choices(list(SKILLS), list(SKILLS.values()))[0](words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A fact: the sentences that state it, acknowledge it, ask for it and recall it."""

    key: str
    told: str
    noted: str
    asked: str
    recalled: str


BEINGS = word_list(
    """
    cat dog horse parrot rabbit hamster sister brother friend teacher son daughter boat goldfish uncle
    aunt neighbour cousin doctor robot boss
    """
)
THINGS = word_list("key book hat phone map bag coat knife ticket umbrella cup hammer letter wallet watch camera lamp")
SECRETS = ["code word", "password", "magic word", "secret number", "room number"]
FAVOURITES = ["colour", "animal", "food", "number", "word", "place"]


def new_fact(words: Words) -> Fact:
    pick = words.rng.choice
    kind = pick(("being", "being", "being", "thing", "secret", "favourite", "name", "home"))
    if kind == "being":
        who, name = pick(BEINGS), words.name()
        asked = pick((f"What is my {who} called?", f"What is my {who} called?", f"What is the name of my {who}?"))
        told = pick((f"My {who} is called {name}.", f"My {who} is called {name}.", f"I have a {who} called {name}."))
        return Fact(
            key=who,
            told=told,
            noted=f"Your {who} is called {name}.",
            asked=asked,
            recalled=f"Your {who} is called {name}.",
        )
    if kind == "thing":
        what, place = pick(THINGS), pick(words.places)
        where = f"The {what} is in the {place}."
        return Fact(key=what, told=where, noted=where, asked=f"Where is the {what}?", recalled=where)
    if kind == "secret":
        what = pick(SECRETS)
        value = str(words.number()) if "number" in what else pick((words.word(), words.code()))
        said = f"The {what} is {value}."
        return Fact(key=what, told=said, noted=said, asked=f"What is the {what}?", recalled=said)
    if kind == "favourite":
        what = pick(FAVOURITES)
        pool = {"colour": words.colours, "place": words.places}
        value = str(words.number()) if what == "number" else pick([*pool.get(what, ()), words.noun(), words.noun()])
        said = f"favourite {what} is {value}."
        return Fact(
            key=f"favourite {what}",
            told=f"My {said}",
            noted=f"Your {said}",
            asked=f"What is my favourite {what}?",
            recalled=f"Your {said}",
        )
    if kind == "name":
        name = words.name()
        told = pick((f"My name is {name}.", f"I am called {name}."))
        return Fact(
            key="name",
            told=told,
            noted=f"Your name is {name}.",
            asked="What is my name?",
            recalled=f"Your name is {name}.",
        )
    town = words.invented().capitalize()
    return Fact(
        key="home",
        told=f"I live in {town}.",
        noted=f"You live in {town}.",
        asked="Where do I live?",
        recalled=f"You live in {town}.",
    )


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
                items = [words.word() for _ in range(words.rng.randint(2, 4))]
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
