"""`srbench upscale`: enlarge pictures of any size, or the LR of a whole dataset, with any method."""

from srbench.upscaling.api import upscale
from srbench.upscaling.dataset import DatasetResult, upscale_data
from srbench.upscaling.results import Guess, Upscaled, UpscaleResult, render

__all__ = ["DatasetResult", "Guess", "UpscaleResult", "Upscaled", "render", "upscale", "upscale_data"]
