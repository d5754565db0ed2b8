"""Simulates a CUDA device without a GPU: tensors have no values, and mixing devices raises.

It needs no GPU, so that every machine can tell whether code would run on one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from srbench.errors import SrbenchError


class ValuesNeededError(SrbenchError):
    """What ran on the device that is not there asked for a value."""


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Let tensors made inside the block have no values, and the device "cuda" exist.

    Modules that were built outside go there by `module.to("cuda")`.

    Raises:
        ValuesNeededError: If the block looks at a value, by `.item()`, `.numpy()`, a condition or a mask.
    """
    from torch._subclasses.fake_tensor import (
        DataDependentOutputException,
        DynamicOutputShapeException,
        FakeTensorMode,
    )

    log = logging.getLogger("torch._subclasses.fake_tensor")  # it logs a traceback of what it raises anyway
    before, log.disabled = log.disabled, True
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise ValuesNeededError(f"{error} needs values") from error
    except RuntimeError as error:
        if ".numpy() is not supported" in str(error):
            raise ValuesNeededError(".numpy() needs values") from error
        raise
    finally:
        log.disabled = before
