"""The WKV-7 recurrence: one token in place, or many tokens in chunks of matrix products.

For each head, S [N,N] is the state (rows: value side, columns: key side). Each token has the column vectors r, k, v, a,
b and the decay w in (0, 1) (Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution",
arXiv 2503.14456, section 4):

    S <- S diag(w) + (S a) b^T + v k^T,    y = S r

Within a chunk of c tokens, let W_t be the product of the decays up to and including token t, and u_t = S_{t-1} a_t.
Unrolled, S_t = (S_0 + sum over s <= t of (u_s b_s^T + v_s k_s^T) diag(1 / W_s)) diag(W_t). With tokens as rows and
A~ = W_{t-1} a, R~ = W_t r, B~ = b / W_t, K~ = k / W_t:

    (I - lower(A~ B~^T)) U = A~ S_0^T + lower(A~ K~^T) V          lower: strictly below the diagonal
    Y = R~ S_0^T + tril(R~ B~^T) U + tril(R~ K~^T) V              tril: with the diagonal
    S_c = (S_0 + U^T B~ + V^T K~) diag(W_c)

so only the products with S_0 must run one chunk after another. A decay is at least exp(-exp(-1/2)) = 0.545, so 1 / W
stays below 2e4 for chunks of 16 tokens and below 3e8 for 32. Both are safe in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 16

HEADS = 64
"""How many heads a CPU steps at once: their states, 1 MB at N = 64, stay in a core's cache between passes."""


def wkv_step_(states: Sequence[Tensor], r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """One token: changes the states [B,H,N,N], in one or several parts, in place. Returns y [B,H,N].

    r .. b are [B,H,N]; w is the decay itself.
    """
    size = r.shape[-1]
    flats = [state.view(-1, size, size) for state in states]  # (part of B * H, N, N)
    if len(r) * r.shape[1] >= 2 * HEADS and r.is_cpu:
        flats = [part for flat in flats for part in torch.split(flat, HEADS)]
    rows = [x.reshape(-1, 1, size) for x in (r, w, k, v, a, b)]
    if len(flats) == 1:
        return _step_(flats[0], *rows).view(r.shape)
    counts = [len(flat) for flat in flats]
    parts = zip(flats, *(torch.split(x, counts) for x in rows), strict=True)
    return torch.cat([_step_(*part) for part in parts]).view(r.shape)


def _step_(state: Tensor, r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """One token of n heads: state [n,N,N]; r .. b and the result are [n,1,N]."""
    value = torch.cat((torch.bmm(a, state.mT), v), dim=1)  # (n, 2, N); a row times S^T is the fast way to S a
    state.mul_(w).baddbmm_(value.mT, torch.cat((b, k), dim=1))
    return torch.bmm(r, state.mT)


def wkv_chunked(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Many tokens: r .. b are [B,T,H,N] fp32, log_w is the logarithm of the decay, state is [B,H,N,N].

    Returns y [B,T,H,N] and the state after T tokens; it does not change `state`. A token whose log_w, k and b are zero
    leaves the state unchanged, so such tokens serve as padding. Differentiable in every argument.
    """
    batch, length, heads, size = r.shape
    pad = -length % chunk
    count = (length + pad) // chunk

    def split(x: Tensor) -> Tensor:  # (B, T, H, N) -> (count, B * H, chunk, N)
        x = F.pad(x, (0, 0, 0, 0, 0, pad)) if pad else x
        x = x.view(batch, count, chunk, heads, size).permute(1, 0, 3, 2, 4)
        return x.reshape(count, batch * heads, chunk, size)

    r, log_w, k, v, a, b = (split(x) for x in (r, log_w, k, v, a, b))
    log_total = log_w.cumsum(dim=-2)
    total = log_total.exp()
    inverse = torch.exp(-log_total)
    a, b, k, r = a * torch.exp(log_total - log_w), b * inverse, k * inverse, r * total
    left = torch.cat((a, r), dim=-2)  # (count, BH, 2 chunk, N)
    right = torch.cat((b, k), dim=-2)
    scores = left @ right.mT  # (count, BH, 2 chunk, 2 chunk)
    ab, ak = scores[..., :chunk, :chunk].tril(-1), scores[..., :chunk, chunk:].tril(-1)
    rb, rk = scores[..., chunk:, :chunk].tril(), scores[..., chunk:, chunk:].tril()
    known = torch.cat((a, ak @ v), dim=-1)  # (count, BH, chunk, 2 N)
    eye = torch.eye(chunk, dtype=r.dtype, device=r.device)
    solved = torch.linalg.solve_triangular(eye - ab, known, upper=False, unitriangular=True)
    from_state, from_values = solved.split(size, dim=-1)  # U = from_state S_0^T + from_values
    read = r + rb @ from_state
    local = rb @ from_values + rk @ v
    decay = total[..., -1:, :]  # (count, BH, 1, N)
    b, k = b * decay, k * decay
    added = v.mT @ k + from_values.mT @ b  # (count, BH, N, N)

    s = state.reshape(batch * heads, size, size)
    starts = []
    # unbind, because the gradient of an index fills the whole tensor with zeros
    steps = zip(from_state.unbind(), added.unbind(), decay.unbind(), b.unbind(), strict=True)
    for from_s, new, keep, key in steps:
        starts.append(s)
        u = torch.bmm(from_s, s.mT)  # (BH, chunk, N)
        s = torch.baddbmm(torch.addcmul(new, s, keep), u.mT, key)
    y = local + read @ torch.stack(starts).mT
    y = y.view(count, batch, heads, chunk, size).permute(1, 0, 3, 2, 4)
    y = y.reshape(batch, count * chunk, heads, size)[:, :length]
    return y, s.view(batch, heads, size, size)
