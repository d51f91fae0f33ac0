"""Training: registered pairs in, a model bundle out."""

from restain.train.run import train

__all__ = ["train"]
