"""The shape of an RWKV-7 model, and the tensors that its file must contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]


class WeightsError(ValueError):
    """A weights file that cannot be used. The message names the file and the key, and both shapes if they differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The sizes of a model. Letters in shape comments: L layers, C channels, H heads, N head_size, V vocabulary."""

    layers: int
    channels: int
    head_size: int
    vocabulary: int
    ffn: int
    rank_w: int
    rank_a: int
    rank_v: int
    rank_g: int

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise WeightsError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.channels % self.head_size:
            raise WeightsError(f"the {self.channels} channels must be a multiple of the head size {self.head_size}")

    @property
    def heads(self) -> int:
        return self.channels // self.head_size

    @property
    def layout(self) -> str:
        """The name of a model's state layout: models with the same layout have states of the same shape."""
        return f"rwkv7 L{self.layers} C{self.channels} H{self.heads} N{self.head_size}"


def expected_shapes(config: Config) -> dict[str, Shape]:
    """Official tensor names and shapes, without axes of length one (files store x_r as [1,1,C] or [C])."""
    c, h, n, v, f = config.channels, config.heads, config.head_size, config.vocabulary, config.ffn
    shapes: dict[str, Shape] = {"emb.weight": (v, c), "ln_out.weight": (c,), "ln_out.bias": (c,), "head.weight": (v, c)}
    shapes |= {"blocks.0.ln0.weight": (c,), "blocks.0.ln0.bias": (c,)}
    for layer in range(config.layers):
        block, att, ffn = f"blocks.{layer}.", f"blocks.{layer}.att.", f"blocks.{layer}.ffn."
        for norm in (f"{block}ln1", f"{block}ln2", f"{att}ln_x"):
            shapes |= {f"{norm}.weight": (c,), f"{norm}.bias": (c,)}
        for name in ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "k_k", "k_a"):
            shapes[att + name] = (c,)
        shapes[att + "r_k"] = (h, n)
        ranks = {"w": config.rank_w, "a": config.rank_a, "g": config.rank_g}
        if layer:  # v0..v2 mix the first layer's value into later layers
            shapes[att + "v0"] = (c,)
            ranks["v"] = config.rank_v
        for name, rank in ranks.items():
            shapes |= {f"{att}{name}1": (c, rank), f"{att}{name}2": (rank, c)}
        for name in ("receptance", "key", "value", "output"):
            shapes[f"{att}{name}.weight"] = (c, c)
        shapes |= {ffn + "x_k": (c,), ffn + "key.weight": (f, c), ffn + "value.weight": (c, f)}
    return shapes


def infer_config(shapes: Mapping[str, Shape], source: str) -> Config:
    """Infers the sizes from the shapes of a file's tensors. Errors name the file as `source`."""

    def axes(key: str, count: int) -> Shape:
        if key not in shapes:
            raise WeightsError(f"{source}: the tensor {key} is missing; is this an RWKV-7 (x070) model?")
        if len(shapes[key]) != count:
            raise WeightsError(f"{source}: {key} should have {count} axes, found shape {list(shapes[key])}")
        return shapes[key]

    vocabulary, channels = axes("emb.weight", 2)
    blocks = [name.split(".")[1] for name in shapes if name.startswith("blocks.")]
    layers = 1 + max((int(number) for number in blocks if number.isdigit()), default=-1)
    heads, head_size = axes("blocks.0.att.r_k", 2)
    if heads * head_size != channels:
        raise WeightsError(
            f"{source}: blocks.0.att.r_k should hold {channels} numbers as [heads, head size], "
            f"found shape {[heads, head_size]}"
        )
    rank_v = axes("blocks.1.att.v1", 2)[1] if layers > 1 else 1
    return Config(
        layers=layers,
        channels=channels,
        head_size=head_size,
        vocabulary=vocabulary,
        ffn=axes("blocks.0.ffn.key.weight", 2)[0],
        rank_w=axes("blocks.0.att.w1", 2)[1],
        rank_a=axes("blocks.0.att.a1", 2)[1],
        rank_v=rank_v,
        rank_g=axes("blocks.0.att.g1", 2)[1],
    )


def check_shapes(shapes: Mapping[str, Shape], source: str) -> Config:
    """Returns the config after checking that every tensor fits it. Tensors with other names are ignored."""
    config = infer_config(shapes, source)
    for key, expected in expected_shapes(config).items():
        if key not in shapes:
            raise WeightsError(f"{source}: the tensor {key} of shape {list(expected)} is missing")
        found = shapes[key]
        if without_ones(found) != without_ones(expected):
            raise WeightsError(f"{source}: {key} should have shape {list(expected)}, found {list(found)}")
    return config


def without_ones(shape: Shape) -> Shape:
    return tuple(axis for axis in shape if axis != 1)
