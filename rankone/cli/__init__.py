"""The commands of `rankone`: one file a group of commands. They read flags, call the packages below, and print."""

from collections.abc import Callable, Sequence


def command(function: Callable[..., None]) -> Callable[[Sequence[str]], None]:
    """The function as the command of its name: called with the words that follow it, from which tyro makes its arguments."""

    def run(arguments: Sequence[str]) -> None:
        import tyro

        tyro.cli(function, prog=f"rankone {function.__name__}", args=arguments)

    return run
