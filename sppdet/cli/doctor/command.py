"""`sppdet doctor`: says what is installed, and tries it."""

from __future__ import annotations

from typing import Annotated

import typer

from sppdet.cli.common import use_threads
from sppdet.cli.options import ThreadsOption, examples
from sppdet.cli.terminal.notes import say


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            ("does all work, and how fast?", "sppdet doctor"),
            ("for a container: the first detection need not compile", "sppdet doctor --warm-up"),
        )
    )(doctor)


def doctor(
    warm_up: Annotated[
        bool,
        typer.Option("--warm-up", help="Only compile the inner loops, so that nobody has to wait."),
    ] = False,
    threads: ThreadsOption = None,
) -> None:
    """Say what is installed and which of the processor's features are used; load all models that
    come with the package, and detect objects in one generated photo.

    The exit code is 1 if any of it does not work.
    """
    use_threads(threads)

    from sppdet.cli.doctor import facts

    if warm_up:
        facts.compile_loops()
        say(facts.describe_loops())
        return
    for line in (*facts.describe_software(), facts.describe_processor()):
        say(line)
    works = True
    for name, problem in facts.try_models():
        works = works and not problem
        say(f"model {name}: {problem or 'loads'}")
    if works:
        say(facts.time_photo())
    say(facts.describe_loops())
    if not works:
        raise typer.Exit(1)
