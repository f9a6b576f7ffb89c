"""What can go wrong in a night, as a table: name -> how it is done to a house and undone, and how long it lasts."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from deploy.drill import harm, messages, server_harm
from deploy.drill.harm import Inject
from deploy.drill.parts import POSTGRES, QUEUE, WEB

LONGER_THAN_A_LEASE = (3.0, 5.5)  # seconds; a lease is 2.5
BLIP = (0.2, 1.0)
HELD = (2.0, 5.0)
Where = Literal["both", "sqlite", "postgresql"]


@dataclass(frozen=True)
class Fault:
    """`holds` is how long it lasts, in seconds; `on` the database that it concerns."""

    inject: Inject
    holds: tuple[float, float] = BLIP
    on: Where = "both"


FAULTS: Mapping[str, Fault] = {
    "kill worker": Fault(harm.kill("worker")),
    "kill child": Fault(harm.kill("child")),
    "kill decoder": Fault(harm.kill("decoder")),
    "kill sweep": Fault(harm.kill("sweep")),
    "kill producer": Fault(harm.kill_producer),
    "kill queue": Fault(harm.kill(QUEUE)),
    "kill web": Fault(harm.kill(WEB)),
    "kill all workers": Fault(harm.kill_all_workers),
    "kill both sweeps": Fault(harm.kill_both_sweeps),
    "freeze worker": Fault(harm.freeze("worker"), LONGER_THAN_A_LEASE),
    "freeze child": Fault(harm.freeze("child"), LONGER_THAN_A_LEASE),
    "freeze decoder": Fault(harm.freeze("decoder"), LONGER_THAN_A_LEASE),
    "freeze sweep": Fault(harm.freeze("sweep"), LONGER_THAN_A_LEASE),
    "freeze producer": Fault(harm.freeze("producer"), LONGER_THAN_A_LEASE),
    "freeze queue": Fault(harm.freeze(QUEUE), LONGER_THAN_A_LEASE),
    "freeze web": Fault(harm.freeze(WEB), LONGER_THAN_A_LEASE),
    "terminate worker": Fault(harm.terminate),
    "quit worker": Fault(harm.quit_at_once),
    "wipe queue": Fault(server_harm.flush),
    "queue out of memory": Fault(server_harm.no_memory, HELD),
    "restart postgres": Fault(server_harm.end_postgres(signal.SIGQUIT), on="postgresql"),
    "kill postgres": Fault(server_harm.end_postgres(signal.SIGKILL), on="postgresql"),
    "terminate backends": Fault(server_harm.kill_backends, on="postgresql"),
    "kill backend": Fault(server_harm.kill_backend, on="postgresql"),
    "hold rows": Fault(
        server_harm.hold_in_postgres("SELECT id FROM chunks WHERE completed_at IS NULL FOR UPDATE"), HELD, "postgresql"
    ),
    "hold table": Fault(
        server_harm.hold_in_postgres("LOCK TABLE chunks, outcomes IN ACCESS EXCLUSIVE MODE"), HELD, "postgresql"
    ),
    "hold database": Fault(server_harm.hold_in_sqlite, HELD, "sqlite"),
    "reset queue links": Fault(server_harm.reset(QUEUE)),
    "reset database links": Fault(server_harm.reset(POSTGRES), on="postgresql"),
    "half-open queue links": Fault(server_harm.half_open(QUEUE), LONGER_THAN_A_LEASE),
    "half-open database links": Fault(server_harm.half_open(POSTGRES), LONGER_THAN_A_LEASE, "postgresql"),
    "part from queue": Fault(server_harm.parted(QUEUE), LONGER_THAN_A_LEASE),
    "part from database": Fault(server_harm.parted(POSTGRES), LONGER_THAN_A_LEASE, "postgresql"),
    "slow database": Fault(server_harm.slow(POSTGRES), HELD, "postgresql"),
    "slow queue": Fault(server_harm.slow(QUEUE), HELD),
    "full disk": Fault(server_harm.fill_disk, HELD),
    "files may not grow": Fault(harm.forbid_growth, HELD),
    "clock 2 h ahead": Fault(harm.skew(2.0), (5.0, 8.0)),
    "clock 2 h behind": Fault(harm.skew(-2.0), (5.0, 8.0)),
    "garbage": Fault(server_harm.push(messages.garbage)),
    "unknown tasks": Fault(server_harm.push(messages.unknown)),
    "pickled bodies": Fault(server_harm.push(messages.pickled)),
    "yaml bodies": Fault(server_harm.push(messages.yaml)),
    "forged rings": Fault(server_harm.push(messages.forged)),
    "remote control": Fault(server_harm.remote_control),
    "older worker": Fault(harm.older_worker, HELD),
    "two producers": Fault(harm.twin),
}
