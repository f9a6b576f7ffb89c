"""`python -m corpus --files 10000` (from tests/): the long run, and its table."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from corpus import kinds
from corpus.running import Run, Runner, drawn, pool


def main() -> int:
    """0 when every file got its code, no decoder died and none needed more than 1 GiB."""
    parser = argparse.ArgumentParser(prog="python -m corpus", description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1_000_000, help="of the first file; each file has the next one")
    parser.add_argument("--kind", action="append", help="only kinds whose name has this in it")
    parser.add_argument("--table", type=Path, help="write the table here, in Markdown")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # clear away when told to stop
    chosen = [kind for kind in kinds().values() if not asked.kind or any(part in kind.name for part in asked.kind)]
    with tempfile.TemporaryDirectory(prefix="nr-corpus-") as folder, pool() as decoders:
        runner = Runner(decoders, Path(folder))
        for some in drawn(chosen, asked.files, asked.seed):
            runner.work(some)
            print(f"{runner.run.files:,} files, {len(runner.run.wrong)} wrong", file=sys.stderr)
    if asked.table:
        asked.table.write_text(table(runner.run, asked.seed), encoding="utf-8")
    print(*runner.run.wrong, summary(runner.run), sep="\n")
    return int(bool(runner.run.wrong) or runner.run.deaths > 0 or runner.run.peak_mb > 1024)


def summary(run: Run) -> str:
    """One line."""
    slowest = max((account.slowest, name) for name, account in run.kinds.items())
    return (
        f"{run.files:,} files of {len(run.kinds)} kinds: {len(run.wrong)} of another code than expected, {run.deaths} "
        f"decoders died, peak memory of a decoder {run.peak_mb:.0f} MiB, slowest {slowest[0]:.2f} s ({slowest[1]}), "
        f"{run.seconds:.0f} s in all"
    )


def table(run: Run, seed: int) -> str:
    """The account in Markdown."""
    from corpus import damage

    hidden = [account for account in run.kinds.values() if account.hidden]
    hurt = [run.kinds[kind.name] for kind in damage.KINDS if kind.name in run.kinds]
    scored, files = sum(account.codes["scored"] for account in hurt), sum(account.files for account in hurt)
    lines = [
        "# Corpus: bad and odd files through intake and the decoders",
        "",
        f"`cd tests && python -m corpus --files {run.files} --seed {seed} --table bench/corpus.md`",
        "",
        summary(run) + ".",
        "",
        f"Of these files {files:,} were sound before they were damaged (cut at every 5 %, closed again, cut strips and",
        f"streams, 512 bytes zeroed, one bit flipped): {files - scored:,} were refused, {scored:,} scored.",
        "",
        "## Damage that a format does not show",
        "",
        "All those that scored are below. No decoder can tell them from a sound file: entropy-coded data without",
        "a checksum (JPEG, JPEG 2000, WebP, LZW, PackBits, RLE, deflated DICOM), and pixels that are not compressed at",
        "all. Only a hash made by the sender would show it. Every other damaged file of this run was refused.",
        "",
        "| kind | damaged files | scored unnoticed | share |",
        "|---|---:|---:|---:|",
        *(
            f"| {name} | {account.hidden} | {account.silent} | {account.silent / account.hidden:.0%} |"
            for name, account in run.kinds.items()
            if account.hidden
        ),
        f"| all | {sum(a.hidden for a in hidden)} | {sum(a.silent for a in hidden)} | |",
        "",
        "## Every kind",
        "",
        "| kind | what it is | files | outcomes | slowest s | wrong |",
        "|---|---|---:|---|---:|---:|",
        *(
            f"| {name} | {account.about} | {account.files} | {_codes(account.codes)} | {account.slowest:.2f} "
            f"| {len(account.wrong)} |"
            for name, account in run.kinds.items()
        ),
        "",
    ]
    return "\n".join(lines)


def _codes(codes: dict[str, int]) -> str:
    return ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))


if __name__ == "__main__":
    sys.exit(main())
