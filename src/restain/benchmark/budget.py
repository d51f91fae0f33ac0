"""What every recipe of a benchmark may spend."""

from __future__ import annotations

import re
from dataclasses import dataclass

from restain.errors import RestainError


@dataclass(frozen=True, slots=True)
class Budget:
    """Either steps of stage two, or minutes of computing for both stages."""

    steps: int | None = None
    minutes: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``500steps`` or ``10min``. Raises RestainError if the text is neither, or not positive."""
        found = re.fullmatch(r"\s*([0-9.]+)\s*(steps?|min|minutes?)\s*", text)
        try:
            number = float(found[1]) if found else 0.0
        except ValueError:
            number = 0.0
        if found is None or number <= 0 or (found[2].startswith("step") and number != int(number)):
            raise RestainError(f"--budget {text}: expected a number of steps or minutes, as 500steps or 10min.")
        return cls(steps=int(number)) if found[2].startswith("step") else cls(minutes=number)

    def __str__(self) -> str:
        if self.steps is not None:
            return f"{self.steps} steps of stage two"
        return f"{self.minutes:g} min of computing, both stages together"
