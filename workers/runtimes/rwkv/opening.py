"""Opening an RWKV-7 model: check the plan, then the file, then read the weights."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported: spinning threads starve other programs

import torch

from models import mini, rwkv7
from ssmprov.errors import BadRequest
from ssmprov.runtimes import decode_options
from workers.model_files import model_file
from workers.runtimes.base import Plan
from workers.runtimes.devices import device_of
from workers.runtimes.rwkv.options import Options
from workers.runtimes.rwkv.runtime import RwkvRuntime, dtype_of, model_of

EMBEDDED = "@mini"


def open_runtime(plan: Plan) -> RwkvRuntime:
    """Load a model. Raises BadRequest that says what is wrong with the file or the plan."""
    options = decode_options(plan.options, Options, "rwkv")
    path = mini.path() if plan.path.name == EMBEDDED else model_file(plan.path, "rwkv")
    dtype_of(plan.dtype)
    device_of(plan.device)
    torch.set_num_threads(options.threads)
    try:
        model = model_of(rwkv7.read_tensors(path), plan, options, str(path))
        return RwkvRuntime(model, rwkv7.fingerprint(path), plan, options)
    except rwkv7.WeightsError as error:
        raise BadRequest(str(error)) from None
