"""`nightread`: one group whose subcommands load only when they are called (click's documented LazyGroup)."""

import importlib
import os
import sys

import click

from db.errors import NightreadError
from db.words import Exit

# name -> "module:command"; each package owns its commands. test_readme.py holds this table against the README.
COMMANDS = {
    "init": "deploy.commands:init",
    "up": "deploy.commands:up",
    "screen": "deploy.commands:screen",
    "demo": "deploy.commands:demo",
    "doctor": "deploy.commands:doctor",
    "plan": "deploy.plan.command:plan",
    "drill": "deploy.drill.command:drill",
    "backup": "deploy.backup:backup",
    "restore": "deploy.restore:restore",
    "site": "producer.commands:site",
    "submit": "producer.commands:submit",
    "status": "producer.commands:status",
    "report": "producer.commands:report",
    "cases": "producer.case_commands:cases",
    "certify": "producer.certify:certify",
    "resume": "producer.commands:resume",
    "retry": "producer.commands:retry",
    "worker": "workers.cli:worker",
    "sweep": "workers.cli:sweep",
    "workers": "workers.cli:workers",
    "cache": "workers.cache_command:cache",
    "models": "workers.model_commands:models",
    "train": "workers.training.commands:train",
    "advise": "workers.training.commands:advise",
    "evaluate": "workers.training.evaluate:evaluate",
    "study": "workers.training.studies:study",
    "pretrain": "workers.training.pretrain:pretrain",
    "web": "webui.cli:web",
    "user": "webui.cli:user",
    "audit": "webui.cli:audit",
}


# What a front end is installed without -> the extra of pyproject.toml that brings it.
EXTRAS = {
    **dict.fromkeys(("keras", "openvino", "safetensors"), "worker"),
    **dict.fromkeys(("matplotlib", "sklearn", "tensorflow"), "train"),
    "nncf": "optimize",
}


class LazyGroup(click.Group):
    """A group that imports a subcommand's module when it is asked for, so that `nightread submit` never pays for
    what `nightread worker` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nightread")
def group() -> None:
    """Overnight screening of chest images: submit folders, review the flagged scans by morning.

    Research software: a physician decides, never the machine."""


def main() -> None:
    """The console script: errors raised on purpose become one line and a stable exit code."""
    try:
        code = group.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted: nothing is lost, `nightread resume` goes on", err=True)
        code = Exit.PARTIAL
    except click.ClickException as error:
        error.show()
        code = Exit.USAGE
    except NightreadError as error:
        click.echo(f"nightread: {error}", err=True)
        code = error.exit_code
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        extra = EXTRAS[error.name]
        click.echo(f"nightread: {error.name} is not installed here: this command needs the extra `{extra}`", err=True)
        code = Exit.REFUSED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python's documented advice
        code = Exit.PARTIAL
    sys.exit(int(code or 0))
