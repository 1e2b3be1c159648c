"""All chance of a simulated world, from one seed."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from hashlib import blake2b

WEATHER = (0.0, 0.0, 0.0, 0.3, 1.0, 1.0, 3.0)
"""How much more often than usual something happens in a world: most faults never meet most others, so that few remain
to be read where one is found."""


class Chance:
    """Answers questions about what happens, each by its name and number, whatever else is asked.

    So leaving out one thing that happened does not change the others by itself, and what is not needed for a failure
    can be found by trying (`simulation.shrunk`).

    Args:
        seed: Of the world.
        without: What does not happen though it would, as `happened` names it.

    Attributes:
        happened: All that has happened, in order.
        met: How often each thing happened to what was in a state.
    """

    def __init__(self, seed: int, without: frozenset[str] = frozenset()) -> None:
        self.seed = seed
        self.happened: list[str] = []
        self.met: Counter[tuple[str, str]] = Counter()
        self._without = without
        self._asked: defaultdict[str, int] = defaultdict(int)
        self._weather: dict[str, float] = {}

    def happens(self, what: str, probability: float, *, to: str = "", state: str = "") -> bool:
        """Whether something happens to something now.

        Args:
            what: Its name.
            probability: In usual weather; each world has its own.
            to: What it happens to.
            state: Of that; only counted.
        """
        weather = self._weather.get(what)
        if weather is None:
            weather = self._weather[what] = self.one_of(WEATHER, f"weather {what}")
        if weather == 0.0:
            return False
        name = f"{what} {to}"
        number = self._asked[name]
        if self._draw(name) >= probability * weather:
            return False
        name = f"{name}#{number}"
        if name in self._without:
            return False
        self.happened.append(name)
        self.met[what, state] += 1
        return True

    def between(self, low: float, high: float, what: str) -> float:
        """A number."""
        return low + (high - low) * self._draw(what)

    def integer(self, low: int, high: int, what: str) -> int:
        """A whole number, both bounds included."""
        return min(low + int((high - low + 1) * self._draw(what)), high)

    def one_of[T](self, options: Sequence[T], what: str) -> T:
        """One of several."""
        return options[int(len(options) * self._draw(what))]

    def _draw(self, name: str) -> float:
        number = self._asked[name]
        self._asked[name] = number + 1
        digest = blake2b(f"{self.seed}/{name}/{number}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) / 2**53


class Calm(Chance):
    """Nothing happens but what is asked for, and that at once."""

    def happens(self, what: str, probability: float, *, to: str = "", state: str = "") -> bool:
        return False

    def between(self, low: float, high: float, what: str) -> float:
        return low
