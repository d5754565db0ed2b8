"""Images as tensors and files: decoding, resampling, degradation, tiles."""
