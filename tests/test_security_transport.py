"""Queue and database beyond this machine: TLS with a checked certificate, one user who may ring and nothing else.

The server runs on the files of deploy/valkey, on a Unix socket: the wheel's Valkey is built without TLS. The client's
half of TLS is tested against a relay that ends TLS before that socket.
"""

import contextlib
import os
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from queue import SimpleQueue

import pytest
import redis
from click.testing import CliRunner
from guarded import PASSWORD, VALKEY, guarded_server
from kombu import Queue
from redis.exceptions import NoPermissionError

from db.errors import QueueUnreachable, Refused
from db.settings import Settings, settings
from db.transport import require_private_database, require_private_queue
from db.words import Exit
from producer.cli import group
from workers import queue

CHECKED = "ssl_cert_reqs=required&ssl_ca_certs=/run/tls/ca.crt"

# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "redis+socket:///run/valkey.sock",
        "redis://127.0.0.1:6379/0",
        "redis://:secret@127.8.9.1/0",
        "redis://localhost",
        "redis://[::1]:6379/0",
        "redis://",
        f"rediss://nightread:secret@valkey:6379/0?{CHECKED}",
        "rediss://valkey?ssl_cert_reqs=CERT_REQUIRED",
        f"redis://127.0.0.1;rediss://valkey/0?{CHECKED}",
    ],
)
def test_a_queue_on_this_machine_or_over_checked_tls_is_taken(url):
    require_private_queue(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://valkey:6379/0",
        "redis://10.0.0.5/0",
        "redis://192.168.1.5?ssl_cert_reqs=required",
        "redis://0.0.0.0/0",
        "redis://127.0.0.1.example.org/0",
        "redis://localhost@evil.example/0",
        "redis://localhost.evil.example/0",
        "redis://[2001:db8::1]/0",
        "redis://127.0.0.1;redis://valkey/0",
        "sentinel://10.0.0.5:26379/0",
        "amqp://10.0.0.5//",
        "memory://elsewhere",
        "redis://[::1/0",
        "redis://valkey:none/0",
    ],
)
def test_a_queue_beyond_this_machine_in_plaintext_is_refused(url):
    with pytest.raises(Refused, match="NIGHTREAD_QUEUE_URL") as refused:
        require_private_queue(url)

    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == Exit.REFUSED


@pytest.mark.parametrize(
    "query", ["", "?ssl_cert_reqs=none", "?ssl_cert_reqs=optional", f"?{CHECKED}&ssl_check_hostname=false"]
)
def test_tls_that_would_trust_any_server_is_refused(query):
    """kombu checks no certificate unless the URL asks for it."""
    with pytest.raises(Refused, match="trust any server"):
        require_private_queue(f"rediss://nightread:secret@valkey:6379/0{query}")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////var/lib/nightread/nightread.db",
        "postgresql:///nightread",
        "postgresql+psycopg://nightread@/nightread?host=/run/postgresql",
        "postgresql+psycopg://nightread@127.0.0.1/nightread",
        "postgresql://nightread@[::1]:5432/nightread",
        "postgresql://nightread@localhost/nightread?sslmode=disable",
        "postgresql+psycopg://nightread@/nightread?host=127.0.0.1:5433",
        "postgresql+psycopg://nightread:x@postgres/nightread?sslmode=require",
        "postgresql+psycopg://nightread:x@postgres/nightread?sslmode=verify-full&sslrootcert=/run/tls/ca.crt",
    ],
)
def test_a_database_on_this_machine_or_over_tls_is_taken(url):
    require_private_database(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://nightread:x@postgres/nightread",
        "postgresql://nightread:x@10.0.0.5/nightread?sslmode=prefer",
        "postgresql://nightread:x@10.0.0.5/nightread?sslmode=disable",
        "postgresql://nightread:x@10.0.0.5/nightread?sslmode=require&sslmode=disable",
        "postgresql://nightread:x@/nightread?host=10.0.0.5",
        "postgresql://nightread:x@/nightread?host=127.0.0.1&host=10.0.0.5",
        "postgresql://nightread:x@localhost/nightread?hostaddr=10.0.0.5",
        "postgresql://nightread:x@/nightread?host=/run/postgresql,10.0.0.5",
        "what is this",
    ],
)
def test_a_database_beyond_this_machine_without_tls_is_refused(url):
    with pytest.raises(Refused, match="NIGHTREAD_DATABASE_URL"):
        require_private_database(url)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("NIGHTREAD_QUEUE_URL", "redis://:hunter2@valkey:6379/0"),
        ("NIGHTREAD_DATABASE_URL", "postgresql+psycopg://nightread:hunter2@postgres/nightread"),
    ],
)
def test_no_command_starts_with_a_plaintext_address_and_none_prints_its_password(home, monkeypatch, name, url):
    monkeypatch.setenv(name, url)
    settings.cache_clear()

    for words in (["workers"], ["status"], ["sweep"], ["worker", "--device", "cpu"], ["web"], ["doctor"]):
        result = CliRunner().invoke(group, words, standalone_mode=False)

        assert isinstance(result.exception, Refused), words
        assert name in str(result.exception)
        assert "hunter2" not in str(result.exception) + result.output


# The server's user


@pytest.fixture(scope="module")
def guarded(short_folder):
    with guarded_server(short_folder / f"acl{os.urandom(3).hex()}") as path:
        yield path


def client(guarded, **who):
    return redis.Redis(unix_socket_path=str(guarded), socket_timeout=30, **who)


@pytest.fixture
def ringer(guarded, tmp_path):
    made = queue.app(Settings(home=tmp_path, queue_url=f"redis+socket://nightread:{PASSWORD}@{guarded}"))
    with made.connection_for_write() as connection:
        connection.default_channel.queue_purge(queue.QUEUE)
    return made


def test_the_shipped_server_takes_tls_alone():
    lines = (VALKEY / "valkey.conf").read_text().splitlines()

    assert "port 0" in lines
    assert "tls-port 6379" in lines
    assert (VALKEY / "users.acl").read_text().splitlines()[0] == "user default off"


@pytest.mark.parametrize(
    "who",
    [
        {},
        {"password": PASSWORD},
        {"username": "default", "password": ""},
        {"username": "nightread", "password": "wrong"},
        {"username": "nightread", "password": ""},
        {"username": "admin", "password": PASSWORD},
    ],
    ids=str,
)
def test_anonymous_and_wrong_users_get_nothing(guarded, who):
    with pytest.raises((redis.AuthenticationError, NoPermissionError)):
        client(guarded, **who).llen(queue.QUEUE)


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG GET *", "CONFIG SET dir /tmp", "SHUTDOWN NOSAVE", "DEBUG SLEEP 0",
        "MODULE LOAD /tmp/x.so", "REPLICAOF 10.0.0.5 6379", "ACL LIST", "ACL SETUSER default on",
        "CLIENT KILL TYPE normal",
        "CLIENT LIST", "MONITOR", "SAVE", "BGREWRITEAOF", "MIGRATE 10.0.0.5 6379 k 0 10", "RESTORE k 0 x", "SWAPDB 0 1",
        "FUNCTION FLUSH", "FUNCTION LOAD x", "SCRIPT FLUSH", "SLOWLOG GET", "SORT k",
    ],
)  # fmt: skip
def test_the_user_of_the_queue_may_not_administer_wipe_or_search_it(guarded, command):
    ours = client(guarded, username="nightread", password=PASSWORD)

    with pytest.raises(redis.ResponseError, match=r"no permissions|not allowed"):
        ours.execute_command(*command.split())


def test_the_user_may_do_what_ringing_and_answering_need(ringer):
    assert queue.ring(3, with_app=ringer) == 3

    with ringer.connection_for_read() as connection:
        taken = received(connection, 2)
        taken[0].ack()

    assert queue.length(with_app=ringer) >= 1  # (closing gives back what was not acknowledged)


def test_the_user_may_give_back_what_a_lost_worker_held_under_the_lock_whose_release_is_a_script(ringer, guarded):
    queue.ring(1, with_app=ringer)
    with contextlib.ExitStack() as open_connections:
        lost = open_connections.enter_context(ringer.connection_for_read())
        received(lost, 1)
        ours = client(guarded, username="nightread", password=PASSWORD)
        assert ours.llen(queue.QUEUE) == 0
        assert ours.zcard("unacked_index") == 1

        sweeper = open_connections.enter_context(ringer.connection_for_read())
        channel = sweeper.default_channel
        channel.visibility_timeout = -5  # as if the visibility timeout had passed
        channel.qos._vrestore_count = 0
        channel.qos.restore_visible(num=10)

        assert ours.llen(queue.QUEUE) == 1
        assert ours.zcard("unacked_index") == 0
        assert not ours.exists("unacked_mutex")  # the release script ran


def test_a_wrong_password_is_a_queue_out_of_reach_and_is_not_printed(guarded, tmp_path):
    wrong = queue.app(Settings(home=tmp_path, queue_url=f"redis+socket://nightread:hunter2@{guarded}"))

    with pytest.raises(QueueUnreachable) as raised:
        queue.ping(with_app=wrong)

    assert "hunter2" not in str(raised.value)


def received(connection, count):
    """Messages as a worker takes them: JSON alone."""
    taken = []
    channel = connection.default_channel
    with connection.Consumer(
        [connection_queue(channel)], accept=["json"], on_message=taken.append, prefetch_count=count
    ):
        deadline = time.monotonic() + 60
        while len(taken) < count and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=2)
    assert len(taken) == count
    return taken


def connection_queue(channel):
    return Queue(queue.QUEUE, channel=channel, durable=True)


# TLS, the client's half


@pytest.fixture(scope="module")
def certificates(short_folder):
    """A server's certificate for 127.0.0.1, one for another host, and a third that nobody presents."""
    if shutil.which("openssl") is None:
        if os.environ.get("CI"):
            pytest.fail("openssl makes the certificates of these tests")
        pytest.skip("openssl makes the certificates of these tests")
    folder = short_folder / f"tls{os.urandom(3).hex()}"
    folder.mkdir()
    for name, said in {"right": "IP:127.0.0.1", "other-host": "DNS:elsewhere", "unknown": "IP:127.0.0.1"}.items():
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        made += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={said}"]
        made += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
        made += ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt"]
        subprocess.run(made, check=True, capture_output=True)
    return folder


@contextlib.contextmanager
def relay(certificates, name, to):
    """Ends TLS on a port of this machine and hands the plain bytes on to a Unix socket; yields the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.crt", certificates / f"{name}.key")
    done = threading.Event()

    def serve():
        with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as open_connections:
            port.put(listening.getsockname()[1])
            partner = {}
            while not done.is_set():
                for ready in select.select([listening, *partner], [], [], 0.05)[0]:
                    if ready is listening:
                        with contextlib.suppress(OSError):
                            outer, inner = connected(listening, open_connections)
                            partner |= {outer: inner, inner: outer}
                    elif ready in partner and not handed_on(ready, partner[ready]):
                        for each in (partner.pop(ready), ready):
                            partner.pop(each, None)
                            each.close()

    def connected(listening, open_connections):
        plain, _ = listening.accept()
        with plain:
            plain.settimeout(60)
            outer = open_connections.enter_context(context.wrap_socket(plain, server_side=True))
        inner = open_connections.enter_context(socket.socket(socket.AF_UNIX))
        inner.connect(str(to))
        return outer, inner

    def handed_on(source, target):
        """False at the end of the connection. A record of TLS has at most 16 KiB, so nothing of one stays behind."""
        with contextlib.suppress(OSError):
            content = source.recv(65536)
            target.sendall(content)
            return bool(content)
        return False

    # One thread does it all: OpenSSL neither reads and writes a connection at once, nor bears that another thread
    # closes what it reads (the socket's number goes to the process's next connection, and gets the farewell).
    port = SimpleQueue()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield port.get(timeout=60)
    finally:
        done.set()
        thread.join(60)
    assert not thread.is_alive()


def over_tls(certificates, port, *, trusted="right", scheme="rediss"):
    query = f"?ssl_cert_reqs=required&ssl_ca_certs={certificates}/{trusted}.crt" if scheme == "rediss" else ""
    url = f"{scheme}://nightread:{PASSWORD}@127.0.0.1:{port}/0{query}"
    require_private_queue(url)
    return queue.app(Settings(home=certificates, queue_url=url))


def test_a_ring_goes_over_tls_to_the_server_whose_certificate_is_trusted(guarded, ringer, certificates):
    with relay(certificates, "right", guarded) as port:
        assert queue.ring(2, with_app=over_tls(certificates, port)) == 2

    assert queue.length(with_app=ringer) == 2


@pytest.mark.parametrize(
    ("presented", "how"),
    [
        ("unknown", {}),
        ("right", {"trusted": "unknown"}),
        ("other-host", {"trusted": "other-host"}),
        ("right", {"scheme": "redis"}),
    ],
    ids=["a server nobody knows", "another authority", "another host's certificate", "plaintext to a TLS port"],
)
def test_no_ring_goes_to_a_server_that_is_not_the_trusted_one(guarded, ringer, certificates, presented, how):
    with relay(certificates, presented, guarded) as port, pytest.raises(QueueUnreachable):
        queue.ring(2, with_app=over_tls(certificates, port, **how))

    assert queue.length(with_app=ringer) == 0
