"""Engines: what runs a generator, behind one small interface."""

from restain.engines.choose import choose_engine
from restain.engines.engine import Engine, EngineUnavailable

__all__ = ["Engine", "EngineUnavailable", "choose_engine"]
