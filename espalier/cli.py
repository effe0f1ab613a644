"""The command line: `espalier COMMAND`. Errors that a user can mend become one sentence on stderr and exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import typer
from rich.markup import escape

from contract.errors import EspalierError
from espalier.commands import (
    add,
    bench,
    demo,
    deploy,
    diff,
    export,
    gc,
    infer,
    inspect,
    promote,
    remove,
    rollback,
    serve,
    triton,
    tune,
    undeploy,
)
from espalier.console import console, errors, escape_what_cannot_be_encoded, output
from espalier.hints import with_hint

# What only some commands need, and the extra that brings it.
_EXTRAS = {**dict.fromkeys(("torch", "torchvision", "timm", "onnxscript", "sklearn"), "export"), "matplotlib": "plot"}

app = typer.Typer(
    name="espalier",
    help="Serve many fine-tuned tasks on one shared, frozen trunk.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: espalier demo",
)
app.command()(demo.demo)
app.add_typer(tune.app, name="tune")
app.command()(export.export)
app.command()(add.add)
app.command()(remove.remove)
app.command()(gc.gc)
app.command()(deploy.deploy)
app.command()(undeploy.undeploy)
app.command()(rollback.rollback)
app.command()(promote.promote)
app.command()(inspect.inspect)
app.command()(diff.diff)
app.command()(serve.serve)
app.add_typer(triton.app, name="triton")
app.command()(infer.infer)
app.command()(bench.bench)


@app.command()
def version() -> None:
    """Print the version."""
    from espalier import __version__

    console.out(__version__, highlight=False)


def main() -> None:
    """Run the CLI."""
    escape_what_cannot_be_encoded()
    try:
        _run()
    except EspalierError as error:
        _fail(with_hint(error))
    except FileNotFoundError as error:
        if "No usable temporary directory" in str(error):  # what tempfile says
            _fail("There is no folder for temporary files that can be written; let TMPDIR name one.")
        if Path().stat().st_nlink == 0:
            _fail("The working directory has been deleted; change to one that is there.")
        raise
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _EXTRAS:
            raise
        _fail(
            f"This command needs {missing}, which is not installed; "
            f"install espalier with its extra: pip install 'espalier[{_EXTRAS[missing]}]'."
        )


def _run() -> None:
    try:
        app()
    except SystemExit as end:
        output.flush()
        if output.failure is not None and not end.code:
            _fail(f"The command did its work, but what it says cannot be written ({output.failure.strerror}).", code=1)
        raise


def _fail(sentence: str, code: int = 2) -> NoReturn:
    errors.print(f"[bold red]Error:[/] {escape(sentence)}", soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
