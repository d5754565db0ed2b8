"""No upscaling at all: LR goes straight to the classifier (the LR-direct control)."""

from __future__ import annotations

from torch import Tensor

from srbench.method import Method, MethodInfo, TaskInfo


class NoResize(Method):
    """Hands LR on as it is; only classifiers that take any size can be asked."""

    info = MethodInfo(role="control", family="identity", version="1", output="lr", citation="LR-direct control")

    def skip(self, task: TaskInfo) -> str | None:
        """Skip classifiers of a fixed input size, which would resize LR themselves."""
        if task.classifier_input_size is not None:
            side = task.classifier_input_size
            return f"classifier {task.classifier} takes only {side} x {side} images, so LR cannot go straight to it"
        return None

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return `(N, C, h, w)`, RGB, float, [0, 1], unchanged."""
        return lr
