"""The version of this package, asked of the installed distribution when somebody wants to know."""


def package_version() -> str:
    """The version of the installed distribution, or ``0+checkout`` when it is not installed."""
    from importlib import metadata  # costs 50 ms, and most imports of this package never ask

    try:
        return metadata.version("runledger-pg")
    except metadata.PackageNotFoundError:
        return "0+checkout"
