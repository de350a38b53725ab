"""A network that a test may break, between its processes and the server of a database."""

import contextlib
from collections.abc import Iterator

from chaos.proxy import Proxy
from psycopg.conninfo import conninfo_to_dict, make_conninfo


@contextlib.contextmanager
def proxy_before(url: str) -> Iterator[Proxy]:
    """A proxy whose port leads to the server that ``url`` names."""
    parts = conninfo_to_dict(url)
    host, port = str(parts.get("host") or "localhost"), int(parts.get("port") or 5432)
    made = Proxy(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port))
    try:
        yield made
    finally:
        made.close()


def through(proxy: Proxy, url: str) -> str:
    """The same database, by way of the proxy."""
    return make_conninfo(url, host="127.0.0.1", port=proxy.port, sslmode="disable", gssencmode="disable")
