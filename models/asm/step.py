"""Reads one token in every context, in place and in as few operations as possible. Serving spends most time here.

On a CPU, a small model's step consists mainly of the fixed costs of its operations. So products of weights are computed
once: slot keys are multiplied into the query projection, the refinement's input into its query, key and value, and
temperatures and scales into matrices. The formulas are those of `layer.AttentionLayer`. Results differ by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.asm.layer import AttentionLayer
from models.asm.lm import NORM_EPS, ASMBlock, ASMLanguageModel
from models.asm.positions import alibi_slopes
from models.asm.state import Memory, State

TINY = 1e-8


class Stepper:
    """Steps the contexts of a model in fp32 with the exact scan.

    The model must be in eval mode, and its weights must not change any more. Model and stepper share the large weights.
    """

    @staticmethod
    def fits(model: ASMLanguageModel) -> bool:
        """Whether a `Stepper` can step this model. Every model can step with its own `forward`."""
        return model.config.attention().chunk is None and model.token_emb.weight.dtype == torch.float32

    @torch.no_grad()
    def __init__(self, model: ASMLanguageModel) -> None:
        config = model.config.attention()
        self._model = model
        self._limit = config.max_seq_len if config.pos_mode == "cyclic" else None
        device = model.token_emb.weight.device
        self._key_size = config.head_dim if config.use_rope_keys else 0
        refined = config.slotspace_dim if config.use_slotspace_refine and config.use_rope_slotspace else 0
        frequencies = [_frequencies(self._key_size, config.rope_base)]
        frequencies += [_frequencies(refined, config.rope_base_slotspace)] * 2  # of query and key
        self._frequencies = torch.cat(frequencies).to(device)
        self._signs = torch.ones_like(self._frequencies)
        self._signs[::2] = -1
        self._layers = [_Layer(block) for block in model.layers()]
        self._head = _by_input(model.lm_head)

    @torch.inference_mode()
    def step(self, tokens: Tensor, state: State) -> Tensor:
        """Reads one token [B] in each context of the state, in place. Returns logits [B,V].

        The state must be contiguous; states that are new, picked or returned by a model are. Nothing is checked: with
        absolute positions, the caller makes sure that no context is already at `max_seq_len`.
        """
        model = self._model
        x = F.embedding(tokens, model.token_emb.weight)  # (B, C)
        positions = state.t if self._limit is None else state.t % self._limit
        if model.pos_emb is not None:
            x = x + F.embedding(positions, model.pos_emb.weight)
        angle = (positions.unsqueeze(1) * self._frequencies).unsqueeze(1)  # (B, 1, d + 2 M)
        turn = _Turn(angle.cos(), angle.sin().mul_(self._signs), self._key_size)
        parts = [tensor.unbind(0) for _, tensor in state.memory.items()]
        for layer, *memory in zip(self._layers, *parts, strict=True):
            x = layer.step(x, Memory(*memory), turn)
        state.t += 1
        norm = model.ln_f
        return torch.mm(F.layer_norm(x, x.shape[1:], norm.weight, norm.bias, NORM_EPS), self._head)


class _Turn:
    """Cosines and sines of one step for the write keys [B,1,d] and for the refinement's query and key [B,1,2 M]."""

    def __init__(self, cosine: Tensor, sine: Tensor, key_size: int) -> None:
        sizes = (key_size, cosine.shape[-1] - key_size)
        self.key_cosine, self.slot_cosine = cosine.split_with_sizes(sizes, dim=-1)
        self.key_sine, self.slot_sine = sine.split_with_sizes(sizes, dim=-1)


class _Layer:
    """The products of one block's weights. H heads, d C/H, K slots, M slotspace_dim."""

    def __init__(self, block: ASMBlock) -> None:
        attention = block.attn
        config = self.config = attention.config
        keys, size = attention.slot_keys, config.head_dim
        scale = 1 / math.sqrt(size)
        self.block = block
        self.projections, self.sizes = _fused(attention, scale / max(1e-6, config.read_temperature))
        write = scale / max(1e-6, config.write_temperature)
        self.slot_keys = keys.new_zeros(config.embed_dim, keys.shape[0] * keys.shape[1])  # (C, H K), zero between heads
        for head, own in enumerate(keys * write):  # (K, d)
            self.slot_keys[head * size :, head * own.shape[0] :][:size, : own.shape[0]] = own.T
        self.decay = attention.strength() * torch.tensor(alibi_slopes(config.num_heads), device=keys.device)
        self.decay = self.decay.unsqueeze(1)  # (H, 1)
        self.content = float(attention.gamma()) * scale / max(1e-6, config.read_temperature)
        if config.use_rope_keys:
            self.neighbours = torch.arange(config.embed_dim, device=keys.device).view(-1, 2).flip(1).flatten()
        self.gate = float(attention.gate())
        self.mixing = _by_input(attention.out_proj)
        widen, narrow = (part for part in block.mlp if isinstance(part, nn.Linear))
        self.widening, self.narrowing = _by_input(widen), _by_input(narrow)
        self.widening_bias, self.narrowing_bias = widen.bias, narrow.bias
        if config.use_slotspace_refine:
            self.refine, self.refine_sizes = _refinement(attention)
            self.slot_out = _by_input(attention.slot_out)

    def step(self, x: Tensor, memory: Memory, turn: _Turn) -> Tensor:
        """Runs x [B,C] through the block. Changes the memory [B,...] of this layer in place."""
        block, config = self.block, self.config
        batch, channels = x.shape
        shape = (batch, config.num_heads, config.head_dim)
        norm = block.ln_1
        h = F.layer_norm(x, (channels,), norm.weight, norm.bias, NORM_EPS)
        k, v, q, key_logits = torch.mm(h, self.projections).split_with_sizes(self.sizes, dim=1)
        logits = self._write_logits(k, shape, turn)
        kept, w = _weights(logits, memory, self.decay if config.use_alibi_write else None)
        torch.addcmul(w, kept, memory.den, out=memory.den)
        num = memory.num.view(-1, config.num_slots, config.head_dim)  # (B H, K, d), as are its products
        num.mul_(kept.view(-1, config.num_slots, 1))
        num.baddbmm_(w.view(-1, config.num_slots, 1), v.reshape(-1, 1, config.head_dim))
        read = key_logits.reshape(logits.shape)
        if config.use_content_read:
            products = torch.bmm(q.reshape(-1, 1, config.head_dim), num.mT).view(logits.shape)
            read = torch.addcdiv(read, products, memory.den, value=self.content)
        weights = read.softmax(dim=-1)  # (B, H, K)
        if config.use_slotspace_refine:
            weights = torch.add(weights, self._refined(weights, memory, turn), alpha=self.gate)
        mixed = torch.bmm((weights / memory.den).view(-1, 1, config.num_slots), num)  # (B H, 1, d)
        x = torch.addmm(x, mixed.view(batch, channels), self.mixing)
        return self._mlp(x)

    def _write_logits(self, k: Tensor, shape: Sequence[int], turn: _Turn) -> Tensor:
        """The write logits [B,H,K] of keys [B,C]."""
        config = self.config
        if config.normalize_k:
            k = F.normalize(k.reshape(shape), dim=-1, eps=TINY).flatten(1)
        if config.use_rope_keys:
            swapped = k.index_select(1, self.neighbours).view(*shape)
            k = torch.addcmul(k.reshape(shape) * turn.key_cosine, swapped, turn.key_sine).flatten(1)
        return torch.mm(k, self.slot_keys).view(*shape[:2], -1)

    def _refined(self, weights: Tensor, memory: Memory, turn: _Turn) -> Tensor:
        """The refinement's slot weights [B,H,K]."""
        config, size = self.config, self.config.slotspace_dim
        parts = torch.mm(weights.view(-1, config.num_slots), self.refine).view(*weights.shape[:2], -1)
        both, *swapped, v = parts.split_with_sizes(self.refine_sizes, dim=-1)
        if swapped:
            both = torch.addcmul(both * turn.slot_cosine, swapped[0], turn.slot_sine)
        phi = both.clamp_max(0.0).exp_().add_(both.relu())  # (B, H, 2 M)
        q, k = phi.view(-1, 2 * size).chunk(2, dim=1)  # (B H, M)
        s, z = memory.S.view(-1, size, size), memory.Z.view(-1, size)
        s.baddbmm_(k.unsqueeze(2), v.reshape(-1, 1, size))
        z.add_(k)
        den = z.clamp_min(TINY).mul_(q).sum(dim=1, keepdim=True).clamp_min_(TINY)
        read = torch.bmm(q.unsqueeze(1), s).squeeze(1).div_(den)
        logits = torch.mm(read, self.slot_out).view(weights.shape)
        return logits.tanh_() if config.slotspace_signed_weights else logits.softmax(dim=-1)

    def _mlp(self, x: Tensor) -> Tensor:
        """Adds the MLP's output to x [B,C].

        GELU(y) is y (1 + erf(y / sqrt 2)) / 2. For a few rows this takes a tenth of the time of torch's own GELU.
        """
        norm = self.block.ln_2
        y = torch.mm(F.layer_norm(x, x.shape[1:], norm.weight, norm.bias, NORM_EPS), self.widening)
        if self.widening_bias is not None:
            y.add_(self.widening_bias)
        y = torch.addcmul(y, y, torch.erf(y * math.sqrt(0.5)))
        x = torch.addmm(x, y, self.narrowing, alpha=0.5)
        return x if self.narrowing_bias is None else x.add_(self.narrowing_bias)


def _frequencies(size: int, base: float) -> Tensor:
    """The frequencies of `positions.rope_tables`, repeated for both halves."""
    half = base ** -(torch.arange(0, size, 2, dtype=torch.float32) / max(1, size))
    return torch.cat((half, half))


def _fused(attention: AttentionLayer, scale: float) -> tuple[Tensor, list[int]]:
    """The projections to key, value, query and to the key part of the read logits, as one matrix [C, 3 C + H K].

    The layer's own weights become views of it, so they are in memory only once.
    """
    config = attention.config
    parts = [attention.Wk_write, attention.Wv_write, attention.Wq_read]
    query = attention.Wq_read.weight.view(config.num_heads, config.head_dim, config.embed_dim)
    products = (attention.slot_keys * scale) @ query  # (H, K, C)
    sizes = [config.embed_dim] * 3 + [config.num_heads * config.num_slots]
    matrix = torch.cat([*(part.weight.T for part in parts), products.flatten(0, 1).T], dim=1)
    for part, own in zip(parts, matrix.split_with_sizes(sizes, dim=1), strict=False):
        part.weight.data = own.T
    return matrix, sizes


def _by_input(linear: nn.Linear) -> Tensor:
    """The weight as [in, out], which is faster for a few rows. The layer's own weight becomes a view of it."""
    matrix = linear.weight.T.contiguous()
    linear.weight.data = matrix.T
    return matrix


def _refinement(attention: AttentionLayer) -> tuple[Tensor, list[int]]:
    """One matrix [K, 5 M] from read weights to the refinement's query and key, both again with swapped neighbours, and
    value. Without RoPE it is [K, 3 M], since nothing is swapped."""
    size = attention.config.slotspace_dim
    q, k, v = (
        part.weight @ attention.slot_in.weight for part in (attention.slot_q, attention.slot_k, attention.slot_v)
    )
    parts, sizes = [q, k], [2 * size]
    if attention.config.use_rope_slotspace:
        parts += [part.view(-1, 2, part.shape[1]).flip(1).reshape(part.shape) for part in (q, k)]
        sizes.append(2 * size)
    return torch.cat([*parts, v]).T.contiguous(), [*sizes, size]


def _weights(logits: Tensor, memory: Memory, decay: Tensor | None) -> tuple[Tensor, Tensor]:
    """The factors [B,H,K] of the old sums and of the new token. Sets m to the largest logit, in place."""
    m = memory.m if decay is None else memory.m.sub_(decay)
    top = torch.maximum(m, logits)
    kept = torch.sub(m, top).exp_()
    m.copy_(top)
    return kept, logits.sub_(top).exp_()
