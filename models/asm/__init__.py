"""Addressed State Models in torch: the layer in three variants, the language model and its fixed-size state."""

from models.asm.attention import (
    AddressedStateAttention,
    AddressedStateAttentionIntervene,
    AddressedStateAttentionOnline,
)
from models.asm.configuration import ASMTrainConfig, AttentionConfig
from models.asm.errors import ASMError, ConfigError, InputError, WeightsError
from models.asm.files import read_checkpoint, save_checkpoint
from models.asm.flags import Flags, InfoConfig
from models.asm.identity import WORLD_VOCABULARY, fingerprint, layout, spelling
from models.asm.lm import ASMBlock, ASMLanguageModel, build_model_from_cfg
from models.asm.loading import Loaded, load_checkpoint, load_tensors
from models.asm.state import Memory, State, memory_shapes, new_state
from models.asm.step import Stepper
from models.asm.trace import Info

__all__ = [
    "WORLD_VOCABULARY",
    "ASMBlock",
    "ASMError",
    "ASMLanguageModel",
    "ASMTrainConfig",
    "AddressedStateAttention",
    "AddressedStateAttentionIntervene",
    "AddressedStateAttentionOnline",
    "AttentionConfig",
    "ConfigError",
    "Flags",
    "Info",
    "InfoConfig",
    "InputError",
    "Loaded",
    "Memory",
    "State",
    "Stepper",
    "WeightsError",
    "build_model_from_cfg",
    "fingerprint",
    "layout",
    "load_checkpoint",
    "load_tensors",
    "memory_shapes",
    "new_state",
    "read_checkpoint",
    "save_checkpoint",
    "spelling",
]
