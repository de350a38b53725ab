"""``python -m runledger``: the command line without an installed script."""

from runledger.cli.main import main

if __name__ == "__main__":
    main()
