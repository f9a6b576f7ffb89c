"""What deploy/ runs, it runs as nobody in particular: no root, no way to more rights, nothing to write to but its own,
TLS between the parts, nothing published that need not be."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from db.transport import require_private_database, require_private_queue

REPOSITORY = Path(__file__).parent.parent
DEPLOY = REPOSITORY / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"].startswith("nightread-")}
SERVERS = {name: one for name, one in SERVICES.items() if name not in OURS}


def directives(unit):
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_runs_as_a_user_of_its_own_that_can_gain_no_rights(unit):
    said = directives(unit)

    assert said["User"] == "nightread"
    assert said["NoNewPrivileges"] == "yes"
    assert said["CapabilityBoundingSet"] == ""
    assert said["RestrictSUIDSGID"] == "yes"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_writes_to_its_own_folder_alone(unit):
    said = directives(unit)

    assert said["ProtectSystem"] == "strict"  # all read-only but for the state directory
    assert said["StateDirectory"] == "nightread"
    assert said["StateDirectoryMode"] == "0700"
    assert said["UMask"] == "0077"
    assert said["ProtectHome"] == "read-only"
    assert said["PrivateTmp"] == "yes"
    assert "ReadWritePaths" not in said


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_reaches_neither_the_kernel_nor_other_kinds_of_sockets(unit):
    said = directives(unit)

    for name in ("KernelTunables", "KernelModules", "KernelLogs", "ControlGroups", "Hostname"):
        assert said[f"Protect{name}"] == "yes"
    assert said["RestrictNamespaces"] == "yes"
    assert said["RestrictAddressFamilies"] == "AF_UNIX AF_INET AF_INET6"


def test_no_unit_holds_a_secret():
    for unit in UNITS:
        assert not re.search(r"(PASSWORD|SECRET|KEY)=", unit.read_text())
        assert directives(unit)["EnvironmentFile"].lstrip("-") == "/etc/nightread/nightread.env"


def test_both_images_end_as_a_user_that_is_not_root():
    text = (DEPLOY / "Dockerfile").read_text()
    stages = re.split(r"^FROM .* AS (\w+)$", text, flags=re.MULTILINE)
    users = {
        name: re.findall(r"^USER (\S+)$", body, re.MULTILINE)
        for name, body in zip(stages[1::2], stages[2::2], strict=True)
    }

    assert users == {"base": [], "front": ["nightread"], "worker": ["nightread"]}
    assert "useradd --uid 10001" in text


def test_images_take_locked_packages_with_hashes_alone():
    installs = re.findall(r"pip install (.*?)(?: &&|$)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)

    assert installs == ["--require-hashes -r /tmp/lock.txt", "--no-deps --no-build-isolation /src"] * 2


def test_no_secret_gets_into_an_image_or_the_repository():
    ignored = (REPOSITORY / ".dockerignore").read_text().split()

    assert {".git", "**/.env", "deploy/tls", "deploy/valkey"} <= set(ignored)
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert not re.search(r"(\.env|\.key|\.pem|\.crt|passwords\.txt)$", listed, re.MULTILINE)


@pytest.mark.parametrize("name", OURS)
def test_a_container_of_ours_has_no_rights_a_read_only_root_and_read_only_scans(name):
    said = OURS[name]

    assert said["read_only"] is True
    assert said["cap_drop"] == ["ALL"]
    assert said["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in said
    assert "user" not in said  # the image's, which is not root
    scans = [volume for volume in said["volumes"] if volume.endswith(":/scans:ro")]
    assert len(scans) == 1
    assert [volume for volume in said["volumes"] if not volume.endswith(":ro")] == ["home:/var/lib/nightread"]
    assert not any("docker.sock" in volume for volume in said["volumes"])


def test_neither_database_nor_queue_has_a_published_port_and_the_web_has_one_on_loopback():
    published = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}

    assert published == {"web": ["127.0.0.1:8470:8470"]}
    assert all("network_mode" not in one for one in SERVICES.values())


def test_workers_database_and_queue_have_no_way_out():
    assert COMPOSE["networks"]["back"] == {"internal": True}
    assert {name for name, one in SERVICES.items() if one["networks"] != ["back"]} == {"web"}


@pytest.mark.parametrize("name", OURS)
def test_containers_speak_tls_to_servers_whose_certificates_they_check(name):
    environment = OURS[name]["environment"]
    queue_url, database_url = (
        re.sub(r"\$\{.*?\}", "secret", environment[key]) for key in ("NIGHTREAD_QUEUE_URL", "NIGHTREAD_DATABASE_URL")
    )

    require_private_queue(queue_url)
    require_private_database(database_url)
    assert queue_url.startswith("rediss://nightread:secret@valkey")
    assert "sslmode=verify-full&sslrootcert=/run/tls/ca.crt" in database_url


def test_the_servers_of_the_containers_offer_tls():
    assert "ssl=on" in SERVERS["postgres"]["command"]
    assert SERVERS["valkey"]["command"] == ["valkey-server", "/etc/valkey/valkey.conf"]
    assert all(one["security_opt"] == ["no-new-privileges:true"] for one in SERVERS.values())


def test_the_examples_addresses_would_be_taken():
    shown = dict(
        re.findall(r"^#(NIGHTREAD_(?:QUEUE|DATABASE)_URL)=(.*)$", (DEPLOY / "nightread.env.example").read_text(), re.M)
    )

    require_private_queue(shown["NIGHTREAD_QUEUE_URL"])
    require_private_database(shown["NIGHTREAD_DATABASE_URL"])


# Dependencies


def test_an_altered_hash_in_a_lock_fails_the_installation(tmp_path):
    """The same options as the Dockerfile and make_venv.sh, with a wheel made here and no network."""
    wheel = tiny_wheel(tmp_path)
    right = subprocess.run(
        [sys.executable, "-m", "pip", "hash", wheel], capture_output=True, text=True, check=True
    ).stdout.split("sha256:")[1].strip()  # fmt: skip
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")

    done = {digest: install(tmp_path, f"tiny==1.0 --hash=sha256:{digest}") for digest in (right, wrong)}
    unhashed = install(tmp_path, "tiny==1.0")

    assert done[right].returncode == 0, done[right].stderr
    assert done[wrong].returncode != 0
    assert "DO NOT MATCH THE HASHES" in done[wrong].stderr
    assert unhashed.returncode != 0


def test_whoever_installs_nightread_installs_with_hashes():
    for file in (DEPLOY / "make_venv.sh", DEPLOY / "Dockerfile", REPOSITORY / ".ci" / "run"):
        for line in file.read_text().splitlines():
            if re.search(r"pip install\b.* -r ", line):
                assert "--require-hashes" in line, f"{file}: {line}"


def install(folder, line):
    (folder / "lock.txt").write_text(line + "\n")
    command = [sys.executable, "-m", "pip", "install", "--require-hashes", "--no-index", "--find-links", folder]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--target", folder / "into", "--upgrade"]
    return subprocess.run([*command, "-r", folder / "lock.txt"], capture_output=True, text=True, timeout=250)


def tiny_wheel(folder):
    wheel = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(
            "tiny-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(
            "tiny-1.0.dist-info/RECORD",
            "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\ntiny-1.0.dist-info/RECORD,,\n",
        )
    return wheel


def test_the_audit_of_packages_fails_where_its_source_is_out_of_reach(tmp_path):
    """`make audit` must not pass because nobody could be asked."""
    (tmp_path / "lock.txt").write_text(f"flask==3.1.3 --hash=sha256:{'0' * 64}\n")
    nowhere = dict.fromkeys(("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")
    command = [Path(sys.executable).with_name("pip-audit"), "--strict", "--progress-spinner", "off"]
    command += ["--require-hashes", "--disable-pip", "--timeout", "5", "--cache-dir", tmp_path / "cache"]

    ended = subprocess.run(
        [*command, "-r", tmp_path / "lock.txt"],
        env={**os.environ, **nowhere, "no_proxy": "", "NO_PROXY": ""},
        capture_output=True,
        text=True,
        timeout=250,
    )

    assert ended.returncode != 0
    assert "No known vulnerabilities" not in ended.stdout + ended.stderr
