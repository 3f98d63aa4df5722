"""RWKV-7 ("Goose", x070) in torch: loading, batched inference and a differentiable forward."""

from models.mini.tokenizer import ByteTokenizer
from models.rwkv7.config import Config, WeightsError
from models.rwkv7.init import initial_tensors, random_tensors, random_weights, save
from models.rwkv7.layers import Weights, assemble
from models.rwkv7.model import State, forward, forward_train, new_state
from models.rwkv7.tokenizer import Tokenizer, WorldTokenizer, tokenizer_for
from models.rwkv7.weights import fingerprint, load, read_tensors

__all__ = [
    "ByteTokenizer",
    "Config",
    "State",
    "Tokenizer",
    "Weights",
    "WeightsError",
    "WorldTokenizer",
    "assemble",
    "fingerprint",
    "forward",
    "forward_train",
    "initial_tensors",
    "load",
    "new_state",
    "random_tensors",
    "random_weights",
    "read_tensors",
    "save",
    "tokenizer_for",
]
