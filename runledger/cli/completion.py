"""``runledger completion``: the script that lets a shell complete our commands and options."""

import click
from click.shell_completion import get_completion_class

from runledger.cli.main import COMPLETION_VARIABLE, PROGRAM, root
from runledger.cli.options import LedgerCommand, Session


@click.command(cls=LedgerCommand)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def completion(_session: Session, *, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      runledger completion bash > ~/.local/share/bash-completion/completions/runledger
      runledger completion zsh > "${fpath[1]}/_runledger"
      runledger completion fish > ~/.config/fish/completions/runledger.fish
    """
    script = get_completion_class(shell)
    assert script is not None  # the argument names only shells that click knows
    click.echo(script(root, {}, PROGRAM, COMPLETION_VARIABLE).source())
