"""The shape and the options of a layer and of a whole model. Both are frozen, and are checked when they are created.

Fields, defaults and aliases are those of the public research code, so its configurations load unchanged. We added
`scan`, `pos_mode` and `mlp_bias`, and `max_seq_len` on the layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from models.asm.errors import ConfigError

ALIASES = {
    "n_layer": "num_layers",
    "n_head": "num_heads",
    "n_embd": "embed_dim",
    "n_ctx": "max_seq_len",
    "n_positions": "max_seq_len",
    "n_slots": "num_slots",
    "slotspace_size": "slotspace_dim",
    "slotspace": "slotspace_dim",
}
POS_MODES = ("absolute", "cyclic")
MOST = 1 << 53
"""The largest size allowed: above it, products with fractions are not exact."""
LARGEST = 1e9
"""The largest fractional option allowed: no model needs more, and sums and products of two stay finite in fp32."""


def chunk_of(scan: str, write_chunk_size: int) -> int | None:
    """The chunk size that a scan's name means: None for `exact`, n for `chunked:n`, the default for `chunked`."""
    kind, _, size = scan.partition(":")
    if scan == "exact":
        return None
    if scan == "chunked":
        return write_chunk_size
    if kind == "chunked" and size.isdecimal() and int(size) >= 1:
        return int(size)
    raise ConfigError(f"scan must be exact, chunked or chunked:<tokens>, not {scan!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConfig:
    """The options of one layer.

    Letters in shape comments: B contexts, T tokens, C embed_dim, H heads, d C/H, K slots, M slotspace_dim.
    """

    embed_dim: int = 384
    num_heads: int = 8
    num_slots: int = 8
    dropout: float = 0.1
    read_temperature: float = 1.0
    write_temperature: float = 1.0
    slot_dropout: float = 0.0
    state_fp32: bool = True
    normalize_k: bool = False
    use_rope_keys: bool = True
    rope_base: float = 1e4
    use_alibi_write: bool = True
    alibi_strength_init: float = 0.1
    learn_alibi_strength: bool = True
    min_strength: float = 0.0
    use_content_read: bool = True
    content_read_init: float = -4.0
    content_read_max_gamma: float = 3.0
    write_chunk_size: int = 128
    use_slotspace_refine: bool = True
    slotspace_dim: int = 32
    slotspace_chunk_size: int = 128
    slotspace_gate_init: float = -4.0
    slotspace_dropout: float = 0.05
    slotspace_signed_weights: bool = True
    use_rope_slotspace: bool = True
    rope_base_slotspace: float = 1e5
    scan: str = "exact"
    pos_mode: str = "absolute"
    max_seq_len: int | None = None

    def __post_init__(self) -> None:
        sizes = ("embed_dim", "num_heads", "num_slots", "write_chunk_size", "slotspace_dim", "slotspace_chunk_size")
        _at_least_one(self, sizes)
        _check_numbers(self)
        if self.embed_dim % self.num_heads:
            raise ConfigError(f"embed_dim {self.embed_dim} must be a multiple of num_heads {self.num_heads}")
        if self.use_rope_keys and self.head_dim % 2:
            raise ConfigError(f"RoPE needs an even head size, not {self.head_dim} (embed_dim / num_heads)")
        if self.use_slotspace_refine and self.use_rope_slotspace and self.slotspace_dim % 2:
            raise ConfigError(f"RoPE needs an even slotspace_dim, not {self.slotspace_dim}")
        if self.pos_mode not in POS_MODES:
            raise ConfigError(f"pos_mode must be one of {', '.join(POS_MODES)}, not {self.pos_mode!r}")
        if self.pos_mode == "cyclic" and not self.max_seq_len:
            raise ConfigError("pos_mode cyclic needs max_seq_len, the length of one round")
        _ = self.chunk  # raises ConfigError if the scan's name is not valid

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def chunk(self) -> int | None:
        """Tokens per write chunk; None for the exact scan."""
        return chunk_of(self.scan, self.write_chunk_size)

    @property
    def scan_name(self) -> str:
        """The scan in full: `exact` or `chunked:n`."""
        return "exact" if self.chunk is None else f"chunked:{self.chunk}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ASMTrainConfig:
    """A model and how it was trained, with the names and defaults of the public code.

    Letters in shape comments: L num_layers, V vocab_size.
    """

    dataset_name: str = "wikitext"
    dataset_config: str = "wikitext-103-raw-v1"
    tokenizer_name: str = "gpt2"
    max_seq_len: int = 256
    stride_frac_val: float = 0.5
    seed: int = 1337
    train_samples_target: int = 100_000_000
    val_samples_target: int = 25_000
    batch_size: int = 64
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    grad_clip: float = 1.0
    warmup_steps: int = 1000
    total_steps: int = 75_000
    eval_interval: int = 1000
    log_interval: int = 100
    vocab_size: int = 50257
    embed_dim: int = 384
    num_layers: int = 23
    num_heads: int = 8
    num_slots: int = 32
    mlp_ratio: float = 4.0
    mlp_bias: bool = True
    dropout: float = 0.1
    tie_weights: bool = True
    read_temperature: float = 1.0
    write_temperature: float = 1.0
    slot_dropout: float = 0.05
    state_fp32: bool = True
    normalize_k: bool = False
    use_abs_pos: bool = False
    use_rope_keys: bool = True
    rope_base: float = 1e4
    use_alibi_write: bool = True
    alibi_strength_init: float = 0.1
    learn_alibi_strength: bool = True
    min_strength: float = 0.0
    use_content_read: bool = True
    content_read_init: float = -4.0
    content_read_max_gamma: float = 3.0
    write_chunk_size: int = 128
    slotspace_dim: int = 64
    slotspace_chunk_size: int = 128
    use_slotspace_refine: bool = True
    slotspace_gate_init: float = -4.0
    slotspace_dropout: float = 0.05
    slotspace_signed_weights: bool = True
    use_rope_slotspace: bool = True
    rope_base_slotspace: float = 1e5
    enable_compiled: bool = False
    tag: str = ""
    cache_dir: str = ""
    val_windows_cache: str = ""
    resume_path: str = ""
    micro_batch_size: int = 0
    grad_accum_steps: int = 1
    scan: str = "exact"
    pos_mode: str = "absolute"

    def __post_init__(self) -> None:
        _at_least_one(self, ("max_seq_len", "vocab_size", "num_layers"))
        _check_numbers(self)
        self.attention()
        if int(self.embed_dim * self.mlp_ratio) < 1:
            raise ConfigError(f"mlp_ratio {self.mlp_ratio} is too small: the MLP would have width 0")

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any], *, strict: bool = True) -> ASMTrainConfig:
        """Reads a configuration from JSON or a checkpoint, and resolves aliases.

        An unknown field raises ConfigError, because it may change the result; `strict=False` ignores it. A field that
        has two different values (one under its alias) always raises ConfigError.
        """
        known = {field.name: field.default for field in fields(cls)}
        found: dict[str, Any] = {}
        for name, value in given.items():
            target = ALIASES.get(name, name)
            if target not in known:
                if strict:
                    raise ConfigError(f"the configuration has no field {name!r}")
                continue
            if target in found and found[target] != value:
                raise ConfigError(f"the configuration sets {target} twice: {found[target]!r} and {value!r}")
            found[target] = value
        return cls(**{name: _of_type(name, value, known[name]) for name, value in found.items()})

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)

    def attention(self) -> AttentionConfig:
        """The options of each layer: every field of `AttentionConfig`, copied from the field of the same name."""
        return AttentionConfig(**{field.name: getattr(self, field.name) for field in fields(AttentionConfig)})


def _of_type(name: str, value: Any, default: Any) -> Any:
    """A field's value, converted to the type of its default: JSON and older code may write it in another type."""
    match default:
        case str() if value is None:  # the public code leaves unset paths at None
            return ""
        case tuple() if isinstance(value, list | tuple) and len(value) == len(default):
            return tuple(_of_type(name, one, other) for one, other in zip(value, default, strict=True))
        case float() if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        case int() if isinstance(value, float) and value.is_integer() and not isinstance(default, bool):
            return int(value)
        case _ if type(value) is type(default):
            return value
    raise ConfigError(f"{name} should be of type {type(default).__name__}, found {value!r}")


def _at_least_one(config: AttentionConfig | ASMTrainConfig, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} must be at least 1, not {getattr(config, name)}")
        if getattr(config, name) > MOST:
            raise ConfigError(f"{name} must be at most {MOST}, not {getattr(config, name)}")


def _check_numbers(config: AttentionConfig | ASMTrainConfig) -> None:
    """Raises ConfigError if a fraction is NaN, infinite or out of its bounds."""
    for field in fields(config):
        value = getattr(config, field.name)
        if not isinstance(value, float):
            continue
        lowest, largest = -LARGEST, LARGEST
        if field.name.endswith("dropout"):
            lowest, largest = 0.0, 1.0
        elif field.name.startswith("rope_base"):
            lowest = 1.0
        if not lowest <= value <= largest:
            raise ConfigError(f"{field.name} must lie in {lowest:g}..{largest:g}, not {value}")
