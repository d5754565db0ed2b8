"""What a method must do in other arithmetic and on another device: bfloat16 on the CPU, and a CUDA device.

The CUDA device is not there (see `srbench.compute.fake`); what is found are tensors that were left on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from srbench.compute.fake import ValuesNeededError, fake_cuda
from srbench.compute.numerics import Numerics
from srbench.conformance.forward import perturb
from srbench.conformance.subject import ODD, UP, Subject, require
from srbench.conformance.training import Trial, require_finite
from srbench.protocol import Restoration
from srbench.restore import restore
from srbench.training.recipe import Recipe

_BF16 = Numerics("cpu", "bf16")
_BF16_TOLERANCE = 0.1  # of the largest value; 8 bits of mantissa through the smallest networks lose a tenth of that


def bf16(subject: Subject) -> str:
    """Check that SR under autocast to bfloat16 is finite and near that of float32; a baseline's is the same."""
    method, lr = subject.build(), subject.images(*ODD)
    perturb(method)  # a last layer that starts at zero would hide all others
    with torch.inference_mode():
        sr = restore(method, lr.clone(), UP, restoration=Restoration(), numerics=_BF16)
        full = restore(method, lr.clone(), UP, restoration=Restoration(), numerics=Numerics("cpu"))
    require(bool(torch.isfinite(sr).all()), "SR under bf16 holds values that are not finite; look for an overflow")
    off = float((sr - full).abs().max())
    if subject.cls.info.role == "baseline":
        require(
            off <= 1e-6,
            f"SR under bf16 is {off:.3g} off; an interpolation has no weights to save, so compute it in float32,"
            " as srbench.imaging.resample does",
        )
    require(
        off <= _BF16_TOLERANCE * max(1.0, float(full.abs().max())),
        f"SR under bf16 is {off:.3g} off; compute what needs more than 8 bits in float32",
    )
    return f"largest difference to float32 {off:.2g}"


def cuda(subject: Subject) -> str:
    """Check that SR is made where LR lies, and is as large as on the CPU."""
    method, lr = subject.build(), subject.images(*ODD)
    expected = restore_shape(subject, lr)
    try:
        with fake_cuda():
            method.to("cuda")
            image = lr.to("cuda")
            with torch.inference_mode():
                sr = restore(method, image, UP, restoration=Restoration(), numerics=Numerics("cuda"))
    except ValuesNeededError as error:
        return f"not run: forward looks at values ({error}), which a device that is not there has not"
    except RuntimeError as error:
        require("device" not in str(error), _left_behind(error))
        raise
    require(sr.device.type == "cuda", f"SR comes back on {sr.device}; leave it where lr lies")
    require(tuple(sr.shape) == expected, f"SR on a CUDA device has shape {tuple(sr.shape)}, on the CPU {expected}")
    return "no tensor stays on the CPU"


def bf16_training(recipe: Recipe) -> Callable[[Subject], str]:
    """Return the check that a step under autocast to bfloat16 gives finite terms and gradients."""

    def run(subject: Subject) -> str:
        trial = Trial.of(subject, recipe)
        parameters = trial.parameters()
        # two contexts, as in training: what autocast has cast without gradients would serve the terms too in torch 2.10
        with _BF16.active():
            losses = {f"helper {name}": loss for name, _, loss in trial.helper_losses()}
        with _BF16.active():
            terms = trial.terms()
        for name, value in {**losses, **terms}.items():
            require_finite(name, value)
        _total(recipe, terms).backward()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        require(
            all(bool(torch.isfinite(gradient).all()) for gradient in gradients),
            "a gradient under bf16 is not finite; compute the term that overflows in float32",
        )
        for loss in losses.values():
            loss.backward()
        return f"{len(terms)} terms and {len(gradients)} gradients are finite"

    return run


def cuda_training(recipe: Recipe) -> Callable[[Subject], str]:
    """Return the check that a step on a CUDA device, helpers included, leaves no tensor on the CPU."""

    def run(subject: Subject) -> str:
        trial = Trial.of(subject, recipe)
        trial.method.helpers()  # built here, as the training loop does before it moves them
        try:
            with fake_cuda():
                trial = trial.to("cuda")
                parameters = trial.parameters()
                losses = [loss for _, _, loss in trial.helper_losses()]
                terms = list(trial.terms().values())  # autograd's engine would ask the driver, which is not there
        except ValuesNeededError as error:
            return f"not run: training looks at values ({error}), which a device that is not there has not"
        except RuntimeError as error:
            require("device" not in str(error), _left_behind(error))
            raise
        stray = {str(each.device) for each in (*parameters, *losses, *terms) if each.device.type != "cuda"}
        require(not stray, f"parameters or terms are on {', '.join(sorted(stray))}; leave them on the input's device")
        return "no tensor stays on the CPU"

    return run


def restore_shape(subject: Subject, lr: Tensor) -> tuple[int, ...]:
    """Return the shape of SR on the CPU."""
    with torch.inference_mode():
        sr = restore(subject.build(), lr.clone(), UP, restoration=Restoration(), numerics=Numerics("cpu"))
    return tuple(sr.shape)


def _total(recipe: Recipe, terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([recipe.losses[name] * value for name, value in terms.items()]).sum()


def _left_behind(error: Exception) -> str:
    return (
        f"tensors of two devices meet on a GPU: {str(error).splitlines()[0]}; make tensors on the device of the input,"
        " or register them as buffers"
    )
