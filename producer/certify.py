"""`nightread certify`: the morning certificate of a batch, counted anew, on the audit record."""

import click

from db.errors import Refused
from db.store import audit, certificate
from db.store.certificate import Certificate
from db.store.connection import Database, database
from db.store.problems import Problem, What
from db.store.reading import printable
from db.store.registered import folder
from db.words import Exit
from producer import progress, reports
from producer.commands import JSON, operator
from producer.refound import Refound, look_again


@click.command()
@click.argument("batch", type=int)
@click.option("--files/--no-files", "with_files", default=True, show_default=True, help="Read the folder again, too.")
@JSON
def certify(batch: int, with_files: bool, is_json: bool) -> int:
    """Certify BATCH: every file found has exactly one outcome, counted anew from the tables and from the files.

    Ends with 0 only where everything adds up, else with 1, and says what does not."""
    db = database()
    made = certificate.certify(db, batch)
    refound = None
    if with_files:
        with progress.counting("files looked at again:") as show:
            refound = look_again(db, batch, progress=show)
    made = made.also([*(refound.problems if refound else ()), *_audit_problems(db)])
    certificate.put_on_record(db, made, files=refound.files if refound else None, by=operator())
    if is_json:
        reports.print_json({**made.as_json(), "files": refound.files if refound else None})
    else:
        _print(db, made, refound)
    return Exit.DONE if made.holds else Exit.PARTIAL


def _audit_problems(db: Database) -> list[Problem]:
    """What is wrong with the record that the certificate is held against."""
    try:
        audit.verify(db)
    except (ValueError, Refused) as error:  # Refused: nothing here says where the log ends
        return [Problem(What.AUDIT, 1, (str(error),))]
    return []


def _print(db: Database, made: Certificate, refound: Refound | None) -> None:
    click.echo(f"Certificate of batch {made.batch} · site {made.site} · model {made.model}")
    click.echo(reports.sum_line(made))
    click.echo(f"{made.flagged:,} flagged for a physician")
    if refound is not None:
        click.echo(f"{refound.files:,} files looked at again in {printable(folder(db, made.batch)[0])}")
    reports.print_certificate(made)
