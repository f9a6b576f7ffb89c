"""A database as most tests want it: migrated, a site, a stub for a trained model.

Not in conftest.py: there are several of that name, and which one `import conftest` means depends on what was collected.
"""

from db.migrate import upgrade
from db.store import models
from db.store.connection import connect
from db.store.sites import add_site

STUB = models.Registration(
    name="stub",
    version="1",
    folder="",
    architecture="resnet50",
    classes=["normal", "covid"],
    flag_classes=["covid"],
    input_size=64,
    preprocessing_version="1",
    weights_sha256="0" * 64,
    minimum_age=18.0,
    report={},
    threshold=0.5,
    threshold_why="a test",
)


def fill(config):
    db = connect(config)
    upgrade(db)
    add_site(db, "local", by="test")
    models.activate(db, models.register(db, STUB, by="test"), why="a test", by="test")
    db.engine.dispose()
