"""Training: registered pairs in, a model bundle out. Its libraries are the extra ``train``."""

from restain.errors import needs

with needs("train", "Training"):
    from restain.training.run import train

__all__ = ["train"]
