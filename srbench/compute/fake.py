"""Simulates a CUDA device without a GPU: tensors have no values, and mixing devices raises.

It needs no GPU, so that every machine can tell whether code would run on one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from srbench.errors import SrbenchError


class ValuesNeededError(SrbenchError):
    """What ran on the device that is not there asked for a value."""


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Let tensors made inside the block have no values, and the device "cuda" exist.

    Modules that were built outside go there by `module.to("cuda")`. A single number that is drawn on the CPU by
    `torch.rand(())` keeps its value, since no device holds it.

    Raises:
        ValuesNeededError: If the block looks at another value, by `.item()`, `.numpy()`, a condition or a mask.
    """
    import torch
    from torch._subclasses.fake_tensor import (
        DataDependentOutputException,
        DynamicOutputShapeException,
        FakeTensorMode,
    )
    from torch.utils._mode_utils import no_dispatch

    class Mode(FakeTensorMode):
        def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            options = kwargs or {}
            device = torch.device(options.get("device") or "cpu")
            if func._overloadpacket is torch.ops.aten.rand and not args[0] and device.type == "cpu":
                with no_dispatch():
                    number = func(*args, **options)
                return self.fake_tensor_converter.from_real_tensor(self, number, make_constant=True)
            return super().dispatch(func, types, args, kwargs)

    log = logging.getLogger("torch._subclasses.fake_tensor")  # it logs a traceback of what it raises anyway
    before, log.disabled = log.disabled, True
    try:
        with Mode(allow_non_fake_inputs=True):
            yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise ValuesNeededError(f"{error} needs values") from error
    except RuntimeError as error:
        if ".numpy() is not supported" in str(error):
            raise ValuesNeededError(".numpy() needs values") from error
        raise
    finally:
        log.disabled = before
