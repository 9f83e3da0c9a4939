"""At most so many failed logins from one address; further ones are not even looked at for a while."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable

FAILURES, WINDOW_S, ADDRESSES = 10, 60.0, 4096


class Throttle:
    """Counts failures per address: one IPv4 address, or the /64 that an IPv6 client can choose from.

    Lives on the event loop, so it needs no lock. `clock` gives seconds.
    """

    def __init__(
        self,
        failures: int = FAILURES,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures, self._window_s, self._clock = failures, window_s, clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str) -> int:
        """Whole seconds until this address may try again; 0 if it may now."""
        times = self._recent(_network(address))
        return int(times[0] + self._window_s - self._clock()) + 1 if len(times) >= self._failures else 0

    def failed(self, address: str) -> None:
        """A login from this address failed just now."""
        network = _network(address)
        times = self._recent(network)
        times.append(self._clock())
        self._times[network] = times
        self._times.move_to_end(network)
        if len(self._times) > ADDRESSES:
            self._times.popitem(last=False)

    def _recent(self, network: str) -> deque[float]:
        times = self._times.get(network, deque(maxlen=self._failures))
        while times and times[0] <= self._clock() - self._window_s:
            times.popleft()
        return times


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
