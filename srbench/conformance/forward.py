"""What `forward` must do, on the CPU in float32: shape, range, sizes, no randomness, no side effects, saving."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from srbench import weights
from srbench.compute.numerics import Numerics
from srbench.conformance.subject import DOWN, ODD, UP, FailedError, Subject, require
from srbench.errors import ContractError
from srbench.method import Method
from srbench.protocol import load_protocol
from srbench.restore import call

_BATCH_TOLERANCE = 1e-4  # float32 convolutions may sum in another order for another batch size
_PIXEL_LIMIT = 8.0  # an image in 0..255, or one that diverges, is beyond it; an untrained network is not


def contract(subject: Subject) -> str:
    """Check shape, dtype, finite values and range; a baseline must leave a grey image as it is."""
    method = subject.build()
    lr = subject.images(*ODD)
    sr = raw(method, lr, UP)
    require(sr.dtype == lr.dtype, f"expected SR of {lr.dtype}, got {sr.dtype}; return the dtype of lr")
    require(bool(torch.isfinite(sr).all()), "SR holds values that are not finite; look for a division by zero")
    largest = float(sr.abs().max())
    require(
        largest < _PIXEL_LIMIT,
        f"SR of an image in [0, 1] reaches {largest:.4g}; return [0, 1], not 0..255 (a little overshoot is clamped)",
    )
    if method.info.role == "baseline":
        grey = torch.full_like(lr, 0.5)
        off = float((raw(method, grey, UP) - grey.mean()).abs().max())
        require(
            off < 0.5 / 255 + 1e-6, f"a grey image comes back {off:.4g} off; the weights of a kernel must sum to one"
        )
    return f"{tuple(lr.shape)} -> {tuple(sr.shape)}, {str(sr.dtype).removeprefix('torch.')}, |SR| <= {largest:.3g}"


def sizes(subject: Subject) -> str:
    """Check the shape of SR for LR and sizes that are not square, odd, larger and smaller."""
    method = subject.build()
    seen = []
    for height, width in (ODD, (16, 16), (9, 21)):
        for size in (UP, DOWN, (height, width)):
            sr = raw(method, subject.images(height, width, n=1), size)
            seen.append(tuple(sr.shape[-2:]))
    return f"{len(seen)} pairs of sizes"


def deterministic(subject: Subject) -> str:
    """Check that two calls on one input agree."""
    method = subject.build()
    lr = subject.images(*ODD)
    first, second = raw(method, lr, UP), raw(method, lr, UP)
    require(torch.equal(first, second), "two calls on one input differ; remove what is random in eval mode")
    return "two calls agree to the bit"


def batch(subject: Subject) -> str:
    """Check that an image alone becomes what it becomes in a batch."""
    method = subject.build()
    perturb(method)
    lr = subject.images(*ODD, n=3)
    together = raw(method, lr, UP)
    alone = torch.cat([raw(method, image[None], UP) for image in lr])
    off = float((together - alone).abs().max())
    require(
        off <= _BATCH_TOLERANCE,
        f"an image alone and the same image in a batch differ by {off:.3g}; let no statistic run over the batch in eval"
        " mode",
    )
    return f"largest difference {off:.2g}"


def input_untouched(subject: Subject) -> str:
    """Check that `forward` does not write to LR."""
    method = subject.build()
    lr = subject.images(*ODD)
    before = lr.clone()
    raw(method, lr, UP)
    require(torch.equal(lr, before), "forward wrote to lr; work on a copy, all methods get the same tensor")
    return "lr is as it was"


def side_effects(subject: Subject) -> str:
    """Check that `forward` leaves state, mode and the global random generator alone."""
    method = subject.build()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    random_before = torch.random.get_rng_state()
    raw(method, subject.images(*ODD), UP)
    changed = [key for key, value in method.state_dict().items() if not torch.equal(value, before[key])]
    require(not changed, f"forward in eval mode changed {changed[:3]}; update state in train mode only")
    require(not method.training, "forward switched the method to train mode; leave the mode to the harness")
    require(
        torch.equal(random_before, torch.random.get_rng_state()),
        "forward drew from the global random generator; use a generator of your own",
    )
    return "state, mode and random generator are as they were"


def round_trip(subject: Subject) -> str:
    """Check that saved and loaded weights give the same SR."""
    method = subject.build()
    if not method.state_dict() and not subject.trainable:
        return "nothing to save"
    perturb(method)
    same_after_saving(subject, method, None)
    return f"{len(method.state_dict())} tensors saved and loaded, same SR"


def same_after_saving(subject: Subject, method: Method, classifier: nn.Module | None) -> None:
    """Require the same SR after the method, and the classifier trained with it, were saved and loaded."""
    lr = subject.images(*ODD)
    before = raw(method, lr, UP)
    factor = method.info.factor
    card = weights.Card(
        namespace=subject.name,
        name="conformance",
        parameters=dict(subject.cls.tiny),
        track="adapted" if classifier is not None else "frozen",
        factor=None if factor == "any" else factor,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "conformance.safetensors"
        ref = weights.save(
            path,
            method.state_dict(),
            card,
            classifier_state=classifier.state_dict() if classifier is not None else None,
        )
        again = subject.cls.from_weights(weights.load(ref)).eval()
    again.prepare(load_protocol("clean"))
    off = float((raw(again, lr, UP) - before).abs().max())
    require(
        off <= 1e-6,
        f"SR differs by {off:.3g} after saving and loading; keep everything that moves SR in the state dict or in the"
        " constructor's arguments",
    )


def raw(method: Method, lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Return what a method makes of LR in float32, as it comes.

    Raises:
        FailedError: If its shape or type is wrong.
    """
    try:
        with torch.inference_mode():
            return call(method, lr, size, numerics=Numerics("cpu"))
    except ContractError as error:
        raise FailedError(
            f"{error}, for lr {tuple(lr.shape)} and size {size}; info.factor is {method.info.factor!r}"
        ) from error


def perturb(method: Method) -> None:
    """Move every parameter a little."""
    # A layer that starts at zero would hide that the others were not saved.
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in method.parameters():
            spread = 0.1 / math.sqrt(max(1, parameter[0].numel() if parameter.ndim > 1 else 1))
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
