"""Engines: what runs a generator, behind one small interface."""

from restain.engines.choose import choose_engine
from restain.engines.engine import Engine, EngineError

__all__ = ["Engine", "EngineError", "choose_engine"]
