"""Reads and writes checkpoint files: raw tensors and configuration, before a model is built from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.asm.errors import WeightsError
from models.asm.lm import ASMLanguageModel

WRAPPERS = ("model_state_dict", "state_dict", "model", "model_state")
CONFIG_KEYS = ("cfg", "config")


def save_checkpoint(model: ASMLanguageModel, path: Path | str) -> None:
    """Writes weights and configuration to one file: `.safetensors` (configuration in its header) or `.pt`/`.pth`."""
    path = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_weights:
        del tensors["lm_head.weight"]
    config = model.config.to_mapping()
    if path.suffix.lower() == ".safetensors":
        save_file(tensors, path, metadata={"cfg": json.dumps(config)})
    elif path.suffix.lower() in (".pt", ".pth"):
        torch.save({"model_state_dict": tensors, "cfg": config}, path)
    else:
        raise WeightsError(f"{path}: the name of a checkpoint must end in .safetensors, .pt or .pth")


def read_checkpoint(path: Path | str) -> tuple[dict[str, Tensor], Mapping[str, Any] | None]:
    """Returns the tensors of a file, and the configuration in it or in `config.json` beside it.

    It never runs code from the file. Raises WeightsError.
    """
    path = Path(path)
    if path.suffix.lower() not in (".safetensors", ".pt", ".pth"):
        raise WeightsError(f"{path}: the name of a checkpoint must end in .safetensors, .pt or .pth")
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file")
    config: Any = None
    try:
        if path.suffix.lower() == ".safetensors":
            with safe_open(path, "pt") as file:
                found: Any = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
                config = (file.metadata() or {}).get("cfg")
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path}: the file is damaged, cut short or in another format") from error
    except Exception as error:  # the unpickler rejects code with its own type of error; its advice is to run it
        raise WeightsError(f"{path}: the file holds more than tensors and plain values") from error
    if isinstance(found, dict):
        config = next((found[key] for key in CONFIG_KEYS if key in found), config)
        found = next((found[key] for key in WRAPPERS if isinstance(found.get(key), dict)), found)
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(f"{path}: the file should hold a dict of tensors, bare or under {', '.join(WRAPPERS)}")
    beside = path.with_name("config.json")
    if config is None and beside.is_file():
        config = beside.read_text("utf-8-sig")
    return found, _mapping(config, path)


def _mapping(config: Any, path: Path) -> Mapping[str, Any] | None:
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except ValueError as error:
            raise WeightsError(f"{path}: its configuration is not valid JSON ({error})") from None
    if config is not None and not isinstance(config, Mapping):
        raise WeightsError(f"{path}: its configuration should be a mapping, found {type(config).__name__}")
    return config
