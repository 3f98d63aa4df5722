"""The Addressed State Model: an embedding, blocks of the layer and an MLP, and a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.asm.attention import attention_class
from models.asm.configuration import ASMTrainConfig
from models.asm.errors import InputError
from models.asm.flags import Flags, read_flags
from models.asm.positions import Span, span_of
from models.asm.state import Memory, State, check_state, new_state, stack
from models.asm.trace import Info

NORM_EPS = 1e-5
INIT_STD = 0.02


class ASMBlock(nn.Module):
    """x += attention(norm(x)); x += MLP(norm(x))."""

    def __init__(self, config: ASMTrainConfig, variant: str = "baseline") -> None:
        super().__init__()
        channels, width = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
        self.ln_1 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.attn = attention_class(variant)(config.attention())
        self.ln_2 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(channels, width, bias=config.mlp_bias),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(width, channels, bias=config.mlp_bias),
            nn.Dropout(config.dropout),
        )

    def forward(
        self, x: Tensor, state: State | None = None, **options: Any
    ) -> tuple[Tensor, State] | tuple[Tensor, State, Info]:
        """Same arguments and results as the layer's `forward`: x [B,T,C], its state, its flags."""
        y, *rest = self.attn(self.ln_1(x), state, **options)
        x = x + y
        return (x + self.mlp(self.ln_2(x)), *rest)

    def run(self, x: Tensor, memory: Memory, span: Span, flags: Flags) -> tuple[Tensor, Memory, Info | None]:
        """Runs the block without checking its input: the model checks once for all its blocks."""
        y, memory, info = self.attn.run(self.ln_1(x), memory, span, flags)
        x = x + y
        return x + self.mlp(self.ln_2(x)), memory, info


class ASMLanguageModel(nn.Module):
    """Turns token ids into logits and a state."""

    def __init__(self, config: ASMTrainConfig, variant: str = "baseline") -> None:
        super().__init__()
        self.config, self.variant = config, variant
        self.token_emb = nn.Embedding(config.vocab_size, config.embed_dim)
        self.pos_emb = nn.Embedding(config.max_seq_len, config.embed_dim) if config.use_abs_pos else None
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(ASMBlock(config, variant) for _ in range(config.num_layers))
        self.ln_f = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        self.lm_head = nn.Linear(config.embed_dim, config.vocab_size, bias=False)
        self.apply(_initialise)
        if config.tie_weights:
            self.lm_head.weight = self.token_emb.weight

    def layers(self) -> list[ASMBlock]:
        return [block for block in self.blocks if isinstance(block, ASMBlock)]

    def new_state(self, batch: int) -> State:
        """The state of `batch` contexts that have not read anything yet."""
        weight = self.token_emb.weight
        return new_state(
            self.config.attention(), batch, self.config.num_layers, device=weight.device, dtype=weight.dtype
        )

    def forward(
        self,
        tokens: Tensor,
        state: State | None = None,
        *,
        attention_mask: Tensor | None = None,
        lengths: Tensor | None = None,
        last_logits: bool = False,
        **flags: Any,
    ) -> tuple[Tensor, State] | tuple[Tensor, State, list[Info]]:
        """Reads tokens [B,T] after `state` (None: from the start). Returns logits [B,T,V] and the state after them.

        Rows may be at different positions and differ in length: pass `lengths` [B] or `attention_mask` [B,T], and pad
        at the right with any valid id. With `last_logits` the logits are [B,V], after each row's last real token only.
        Other flags go to every layer; `return_info` adds a list of the layers' dictionaries. The call does not change
        `state`.
        """
        blocks = self.layers()
        config = blocks[0].attn.config
        options = read_flags(self.variant, blocks[0].attn.FLAGS, flags)
        if tokens.ndim != 2:
            raise InputError(f"tokens should have shape [B, T], found {list(tokens.shape)}")
        batch, width = tokens.shape
        if state is None:
            state = self.new_state(batch)
        check_state(config, state, batch, len(blocks), self.token_emb.weight.dtype)
        dtype = state.memory.m.dtype
        span = span_of(config, state.t, width, dtype, attention_mask=attention_mask, lengths=lengths)
        x = self.token_emb(tokens)  # (B, T, C)
        if self.pos_emb is not None:
            # Positions of padding may be beyond the table. Clamp them: their results are never used.
            x = x + self.pos_emb(span.positions.clamp_max(self.config.max_seq_len - 1))
        x = self.drop(x)
        memories: list[Memory] = []
        infos: list[Info] = []
        for number, block in enumerate(blocks):
            x, memory, info = block.run(x, state.memory.layer(number), span, options)
            memories.append(memory)
            if info is not None:
                infos.append(info)
        if last_logits:
            x = x[torch.arange(batch, device=x.device), (span.lengths - 1).clamp_min(0)]  # (B, C)
        logits = self.lm_head(self.ln_f(x))
        new = State(stack(memories), span.end, state.scan)
        return (logits, new, infos) if options.wants_info else (logits, new)


def build_model_from_cfg(cfg: ASMTrainConfig | Mapping[str, Any], variant: str = "baseline") -> ASMLanguageModel:
    """A new model from a configuration or from a mapping of its fields. `variant`: baseline, online or intervene."""
    if not isinstance(cfg, ASMTrainConfig):
        cfg = ASMTrainConfig.from_mapping(cfg)
    return ASMLanguageModel(cfg, variant)


def _initialise(module: nn.Module) -> None:
    """Initialises as the published models do; slot keys and scalars keep the values that the layer gave them."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
