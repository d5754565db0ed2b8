"""`srbench upscale`: enlarge pictures of any size with any method, tile by tile where they are large."""

from srbench.upscaling.api import upscale
from srbench.upscaling.results import Guess, Upscaled, UpscaleResult, render

__all__ = ["Guess", "UpscaleResult", "Upscaled", "render", "upscale"]
