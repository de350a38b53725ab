"""The service manager's notification protocol (sd_notify(3)): one datagram to the socket it names."""

import contextlib
import os
import socket
import time


class ServiceManager:
    """Tells systemd how the host is. Does nothing where no manager listens."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._watchdog_seconds = int(os.environ.get("WATCHDOG_USEC") or 0) / 2_000_000
        self._beaten_at = 0.0

    def tell(self, **states: str | int) -> None:
        """For example ``READY=1`` or ``STATUS=…``. A manager that has gone away is no reason to fail."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        message = "\n".join(f"{name}={value}" for name, value in states.items()).encode()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
            datagram.setblocking(False)
            datagram.sendto(message, address)

    def pause_seconds(self, longest: float) -> float:
        """Until the watchdog is due, at most ``longest``."""
        if not self._watchdog_seconds:
            return longest
        return min(longest, max(0.0, self._beaten_at + self._watchdog_seconds - time.monotonic()))

    def beat(self) -> None:
        """The watchdog is fed at half its interval, by the loop it watches."""
        now = time.monotonic()
        if self._watchdog_seconds and now - self._beaten_at >= self._watchdog_seconds:
            self._beaten_at = now
            self.tell(WATCHDOG=1)
