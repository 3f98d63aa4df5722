"""What a file is, from its first bytes and the names of its tensors, before any library opens it.

Nothing in a file is run or believed: a pickle is only split into its opcodes, and a length is compared with the size of
the file.
"""

from __future__ import annotations

import json
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

MAX_HEADER = 64 << 20
"""Far more than the header of any model file."""

_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch's files began before they were zip archives: a number, as a pickle of its own."""

_AGAIN = "download it again"
_TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING", "GLOBAL"}
_PLACES = re.compile(r"[0-9]+|storage|cpu|cuda(:[0-9]+)?|little|big")
"""Texts in torch's files that are not names."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is. `runtimes` can serve it; if there are none, `problem` says what it is and what to do."""

    code: str
    problem: str = ""
    runtimes: tuple[str, ...] = ()


RWKV = Kind("rwkv7", runtimes=("rwkv",))
RWKV_HF = Kind("rwkv7_hf", runtimes=("rwkv",))
ASM = Kind("asm", runtimes=("asm",))
GGUF = Kind("gguf", runtimes=("llama",))
MISSING = Kind("missing", "there is no such file")
EMPTY = Kind("empty", f"the file is empty: {_AGAIN}")
CUT = Kind("cut", f"the file is cut short, so its download is not complete: {_AGAIN}")
DAMAGED = Kind("damaged", f"the file is damaged, or is not what its name says: {_AGAIN}")
NO_FILE = Kind("not_a_file", "this is not a file")
OTHER = Kind(
    "other_model",
    "its tensors are not those of an RWKV-7 model or an Addressed State Model: other models are served as GGUF files",
)
UNKNOWN = Kind(
    "unknown",
    "this is not a model file that ssmprov knows: it serves GGUF files, RWKV-7 weights (.pth or .safetensors) and "
    "Addressed State Models",
)
LFS = Kind(
    "lfs_pointer",
    "this is a Git LFS pointer, not the file itself: fetch it with `git lfs pull` in that directory, or with "
    "`hf download REPO FILE --local-dir .`",
)
ANNEX = Kind("annex_pointer", "this is a git-annex pointer, not the file itself: fetch it with `git annex get`")
HTML = Kind(
    "html",
    "this is a web page, not a model: the download went wrong; use `hf download REPO FILE --local-dir .`, or a link "
    "that contains /resolve/ instead of /blob/",
)
MESSAGE = Kind(
    "message",
    "this is a message from a server, not a model: check the names of repository and file, log in if it asks for it "
    "(`hf auth login`), and download again",
)
PACKED = Kind("packed", "this is a compressed archive: unpack it, and use the model file in it")
OLD_GGML = Kind("ggml", "this is a GGML file from before GGUF: get a GGUF of the same model")
SLOT = Kind(
    "llama_slot",
    "this is a saved slot or session of llama.cpp, not a model, and it does not say which model wrote it, so it cannot "
    "be imported: let the model read the text again. `ssmprov ckpt import` takes what `ckpt export` wrote, a state "
    "file, and the kv.pkl of an old runner",
)
ONNX = Kind("onnx", "this is an ONNX model, which ssmprov does not serve: get the .pth, .safetensors or GGUF file")
TORCHSCRIPT = Kind("torchscript", "this is a TorchScript program, not plain weights: get the .pth or .safetensors")
NUMPY = Kind("numpy", "this is a NumPy archive, not a model file")
PICKLE = Kind(
    "pickle",
    "this is a pickle of something else than weights, and ssmprov never runs a pickle: get the model as .safetensors",
)
ADAPTER = Kind(
    "adapter",
    "this is a LoRA adapter, not a whole model: merge it into its base model first (with PEFT: merge_and_unload, then "
    "save_pretrained), and serve the result",
)
TUNED_STATE = Kind(
    "tuned_state",
    "this is a tuned initial state of an RWKV model, not a model: serve its base model. ssmprov cannot import such a "
    "file; `ssmprov specialist tune` tunes a state here",
)
STATE = Kind(
    "rwkv_state",
    "this is a saved state of another RWKV program, not a model. It does not say which model wrote it, so it cannot be "
    "imported: let the model read the text again",
)
TRAINING = Kind(
    "training",
    "this is a training checkpoint or an optimizer's state, not plain weights: export the weights alone as "
    ".safetensors, or as a .pth with nothing but the tensors",
)
TRANSFORMERS = Kind(
    "transformers",
    "these are the weights of another model in Hugging Face's format: get a GGUF of this model, or make one with "
    "convert_hf_to_gguf.py of llama.cpp, and serve it with the runtime llama",
)
STATE_FILE = Kind(
    "state_file", "this is a state file or an export of ssmprov, not a model: read it with `ssmprov ckpt import`"
)


def _older(version: str) -> Kind:
    return Kind(
        "rwkv_older",
        f"this is an RWKV-{version} model, but ssmprov serves RWKV-7 (x070): get an RWKV-7 model, or a GGUF of this "
        "one if it is an RWKV-6, and serve that with the runtime llama",
    )


MODEL_SUFFIXES = (".gguf", ".safetensors", ".pth", ".pt", ".bin")
INDEX = ".safetensors.index.json"
_PARTS = (".incomplete", ".part", ".crdownload", ".download", ".aria2", ".tmp")


def identify(path: Path) -> Kind:
    """What a file is. It may also be a directory in Hugging Face's layout. Raises OSError if it cannot be read."""
    if path.is_dir():
        return _directory(path)
    if not path.is_file():
        return NO_FILE if path.exists() else MISSING
    if path.name.endswith(INDEX):
        return _of_shards(path)
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        kind = _of_bytes(file, size)
    if kind is UNKNOWN and path.suffix.lower() in MODEL_SUFFIXES:
        kind = DAMAGED
    if path.suffix.lower() in _PARTS and kind in (CUT, DAMAGED, UNKNOWN, EMPTY):
        return CUT
    return kind


def chosen(path: Path) -> Path:
    """The file that a path means: in a directory, its only model. Raises ValueError that names the models there.

    A directory in Hugging Face's layout of RWKV-7 stays as it is. Of a GGUF in parts, the first part counts.
    """
    if not path.is_dir():
        return path
    kind = identify(path)
    if kind in (RWKV_HF, ADAPTER):
        return path
    if kind.runtimes:
        return shards(path)[0]
    found = sorted(each for each in path.iterdir() if each.suffix.lower() in MODEL_SUFFIXES and each.is_file())
    found = [each for each in found if not re.search(r"-0*(?!0*1-of)\d+-of-\d+\.gguf\Z", each.name, re.IGNORECASE)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(each.name for each in found[:8]) + (", ..." if len(found) > 8 else "")
        raise ValueError(f"this directory contains several models: name one of {names}")
    return path


def shards(path: Path) -> list[Path]:
    """The files with the tensors that a path means: one file, or those of an index or a directory."""
    if path.is_dir():
        names = (f"model{INDEX}", "model.safetensors", "pytorch_model.bin")
        path = next((path / name for name in names if (path / name).is_file()), path / names[1])
    elif _SHARD.search(path.name) and (index := path.with_name(_SHARD.sub(INDEX, path.name))).is_file():
        path = index
    if path.name.endswith(INDEX):
        return [path.with_name(name) for name in sorted(set(_index(path).values()))]
    return [path]


_SHARD = re.compile(r"-[0-9]{5}-of-[0-9]{5}\.safetensors\Z")


# -- directories and indexes


def _directory(path: Path) -> Kind:
    if (path / "adapter_config.json").is_file():
        return ADAPTER
    if shards(path)[:1] != [path / "model.safetensors"] or (path / "model.safetensors").is_file():
        return _of_shards(path)
    return Kind("directory", "this is a directory without a model file: name a .gguf, .pth or .safetensors file")


def _of_shards(path: Path) -> Kind:
    files = shards(path)
    found = DAMAGED if not files else OTHER
    for file in files:
        kind = identify(file)
        if kind is MISSING:
            return Kind("part_missing", f"{file.name} is missing: download it too, into the same directory")
        if kind.problem and kind not in (OTHER, TRANSFORMERS):
            return Kind(kind.code, f"{file.name}: {kind.problem}")
        found = kind if kind.runtimes or found is OTHER else found
    return found


def _index(path: Path) -> dict[str, str]:
    """Which file has which tensor; only names of files beside the index count."""
    try:
        if path.stat().st_size > MAX_HEADER:
            return {}
        found = json.loads(path.read_bytes())["weight_map"]
        return {str(name): Path(str(file)).name for name, file in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


# -- bytes


def _of_bytes(file: BinaryIO, size: int) -> Kind:
    if not size:
        return EMPTY
    head = file.read(1024)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head[257:262] == b"ustar":
        return PACKED
    for begins, kind in _BEGINNINGS:
        if head.startswith(begins):
            return kind
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return LFS
    if b"/annex/objects/" in head[:64]:
        return ANNEX
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return HTML
    if size < 1024 and text.startswith(_MESSAGES):
        return MESSAGE
    if head.startswith(b"PK"):
        return _of_zip(file)
    if head.startswith(_LEGACY_TORCH):
        return _of_legacy(file)
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return PICKLE
    if size >= 8 and _looks_like_safetensors(head, size):
        return _of_safetensors(file, size)
    if head[:1] == b"\x08" and any(word in head[:128].lower() for word in (b"onnx", b"pytorch")):
        return ONNX
    return UNKNOWN


_MESSAGES = (b"entry not found", b"repository not found", b"invalid ", b'{"error', b"access to")
_BEGINNINGS = (
    (b"GGUF", GGUF),
    (b"SSMPROV", STATE_FILE),
    (b"qsgg", SLOT),  # magics of llama.cpp, little-endian: ggsq, ggsn
    (b"nsgg", SLOT),
    (b"algg", ADAPTER),
    (b"lmgg", OLD_GGML),
    (b"fmgg", OLD_GGML),
    (b"tjgg", OLD_GGML),
    (b"\x1f\x8b", PACKED),
    (b"BZh", PACKED),
    (b"7z\xbc\xaf\x27\x1c", PACKED),
    (b"\xfd7zXZ\x00", PACKED),
    (b"\x28\xb5\x2f\xfd", PACKED),
    (b"Rar!", PACKED),
    (b"\x93NUMPY", NUMPY),
)


def _looks_like_safetensors(head: bytes, size: int) -> bool:
    (length,) = struct.unpack("<Q", head[:8])
    return head[8:9] == b"{" and 2 <= length < max(size, MAX_HEADER)


def _header(file: BinaryIO) -> dict[str, object] | None:
    """The header of a safetensors file; None if it is cut short or not one."""
    file.seek(0)
    (length,) = struct.unpack("<Q", file.read(8))
    try:
        found = json.loads(file.read(min(length, MAX_HEADER)))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _of_safetensors(file: BinaryIO, size: int) -> Kind:
    (length,) = struct.unpack("<Q", _first(file, 8))
    if 8 + length > size:
        return CUT
    header = _header(file)
    if header is None:
        return DAMAGED
    metadata = header.pop("__metadata__", None)
    ends = [offsets[1] for value in header.values() if (offsets := _offsets(value))]
    if 8 + length + max(ends, default=0) > size:
        return CUT
    if isinstance(metadata, dict) and str(metadata.get("format")).startswith("ssmprov."):
        return STATE_FILE
    return _of_names(set(header))


def _offsets(value: object) -> list[int]:
    found = value.get("data_offsets") if isinstance(value, dict) else None
    fits = isinstance(found, list) and len(found) == 2 and all(isinstance(each, int) for each in found)
    return found if fits else []  # type: ignore[return-value]


def _first(file: BinaryIO, count: int) -> bytes:
    file.seek(0)
    return file.read(count)


def _of_zip(file: BinaryIO) -> Kind:
    try:
        with zipfile.ZipFile(file) as parts:
            names = parts.namelist()
            pickles = [name for name in names if name.endswith("data.pkl")]
            if any("/code/" in name for name in names):
                return TORCHSCRIPT
            if pickles:
                with parts.open(pickles[0]) as inner:
                    return _of_pickle(inner.read(MAX_HEADER))
            return NUMPY if names and all(name.endswith(".npy") for name in names) else PACKED
    except zipfile.BadZipFile:  # its end has the list of its parts
        return CUT
    except (NotImplementedError, EOFError, OSError, RuntimeError, ValueError, zlib.error):
        return DAMAGED


def _of_legacy(file: BinaryIO) -> Kind:
    """After its number come pickles of the version, of the machine, and of the tensors."""
    stream = BytesIO(_first(file, MAX_HEADER))
    try:
        for _ in range(3):
            _texts(stream)
        return _of_texts(_texts(stream))
    except (ValueError, EOFError):
        return CUT


def _of_pickle(data: bytes) -> Kind:
    try:
        return _of_texts(_texts(BytesIO(data)))
    except (ValueError, EOFError):
        return DAMAGED


def _texts(stream: BytesIO) -> list[str]:
    """The texts in a pickle, which is not run, and what it imports ("MODULE NAME").

    Raises ValueError if it is cut short or not a pickle.
    """
    return [
        argument
        for opcode, argument, _ in pickletools.genops(stream)
        if opcode.name in _TEXTS and isinstance(argument, str)
    ]


def _of_texts(texts: list[str]) -> Kind:
    names = {text for text in texts if not _PLACES.fullmatch(text) and " " not in text}
    if not names:  # a bare list; of tensors, if it asks torch to rebuild them
        return STATE if any("_rebuild_" in text for text in texts) else PICKLE
    kind = _of_names(names)
    training = names & {"optimizer", "optimizer_states", "optimizer_state_dict", "param_groups"}
    return TRAINING if training and kind in (OTHER, TRANSFORMERS) else kind


# -- names of tensors


def _of_names(names: set[str]) -> Kind:
    def has(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in names)

    if has(r"\.slot_keys\Z"):
        return ASM
    if has(r"(^|\.)lora_[AB]\b|^base_model\.model\."):
        return ADAPTER
    if has(r"\.time_state\Z") and not has(r"\.(receptance|output)\.weight\Z"):
        return TUNED_STATE
    if has(r"^blocks\.\d+\.att\.r_k\Z"):
        return RWKV
    if has(r"^model\.layers\.\d+\.attn\.r_k\Z"):
        return RWKV_HF
    if version := _rwkv_version(has):
        return _older(version)
    if has(r"^(blocks\.0\.att\.|emb\.weight\Z)"):
        return RWKV  # its loader says which tensor is missing
    if has(r"^optimizer\b|exp_avg"):
        return TRAINING
    if has(
        r"(embed_tokens|wte|word_embeddings|embeddings|lm_head)\.weight\Z|^backbone\.|^(model|transformer)\.layers\."
    ):
        return TRANSFORMERS
    return OTHER


def _rwkv_version(has: Callable[[str], bool]) -> str:
    """The version of an RWKV model before 7, from what its time mixing has; '' for any other model."""
    if has(r"\.time_maa_|\.time_mixer\b"):
        return "6"
    if has(r"\.(att|attention)\.(time_faaaa|ln_x\.weight)") and has(r"\.time_decay\Z"):
        return "5"
    return "4" if has(r"\.(att|attention)\.time_decay\Z") else ""
