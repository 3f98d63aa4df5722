"""The vocabulary for the prompts, and the two tokens whose difference is the margin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.asm.errors import InputError

BYTES = 257
"""A vocabulary of this size is treated as bytes: id 0 ends a text, id 1 + b is the byte b."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """`encode` turns a prompt into ids below `size`. The margin is log P(better) - log P(worse) after the prompt."""

    encode: Callable[[str], list[int]]
    size: int
    better: int
    worse: int
    measure: str
    proxy: bool


def bytes_wording() -> Wording:
    """A proxy for models without GPT-2's vocabulary: the first letter of Paris against that of London.

    The difference of logits equals that of log probabilities. Prompts also get the space before the word.
    """
    from models.mini.tokenizer import ByteTokenizer

    tokenizer = ByteTokenizer()
    [better], [worse] = tokenizer.encode("P"), tokenizer.encode("L")
    return Wording(
        encode=lambda text: tokenizer.encode(f"{text} "),
        size=tokenizer.size,
        better=better,
        worse=worse,
        measure='logit("P") - logit("L") over bytes, after the prompt and a space',
        proxy=True,
    )


def gpt2_wording(directory: Path) -> Wording:
    """The real margin, with GPT-2's `vocab.json` and `merges.txt` from a directory. Raises InputError."""
    files = [directory / name for name in ("vocab.json", "merges.txt")]
    for path in files:
        if not path.is_file():
            raise InputError(
                f"{path}: there is no such file; --tokenizer must be the directory with GPT-2's vocab.json and "
                "merges.txt"
            )
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers
    except ModuleNotFoundError:
        raise InputError(
            "reading GPT-2's vocabulary needs the Python module 'tokenizers': pip install tokenizers"
        ) from None
    try:
        tokenizer = Tokenizer(models.BPE.from_file(*map(str, files)))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(
            f"{directory}: its vocab.json and merges.txt cannot be read ({str(error).splitlines()[0]})"
        ) from None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text).ids)

    pair = []
    for word in (" Paris", " the"):
        ids = encode(word)
        if len(ids) != 1:
            raise InputError(
                f"{directory}: {word!r} is {len(ids)} tokens in this vocabulary, but the margin needs a single token"
            )
        pair += ids
    return Wording(
        encode=encode,
        size=tokenizer.get_vocab_size(),
        better=pair[0],
        worse=pair[1],
        measure='log P(" Paris") - log P(" the") after the prompt',
        proxy=False,
    )


def wording_for(vocabulary: int, directory: Path | None) -> Wording:
    """The wording for a model with this vocabulary size. Raises InputError if no known vocabulary fits."""
    if directory is not None:
        found = gpt2_wording(directory)
        if found.size > vocabulary:
            raise InputError(f"{directory}: this vocabulary has {found.size} tokens, but the model has {vocabulary}")
        return found
    if vocabulary != BYTES:
        raise InputError(
            f"the model's vocabulary has {vocabulary} tokens, so it is not a byte model ({BYTES} tokens): pass the "
            "directory with GPT-2's vocab.json and merges.txt as --tokenizer"
        )
    return bytes_wording()
