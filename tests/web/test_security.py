"""What must never happen: reading outside of the folder, running what a name holds, answering a foreign page."""

import http.client
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from restain.errors import RestainError
from restain.web.serve import serve
from restain.web.settings import Settings, allowed_hosts

HE = "block_1.ome.tiff"
HOSTILE = "odd/<img src=x onerror=alert(1)>&'\".png"


def raw(server, target: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """The target as it stands, which clients would tidy up."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, target, headers={"Host": f"127.0.0.1:{server.port}"} | headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize(
    "target",
    [
        *("/../../etc/passwd", "/static/../../../etc/passwd", "/static/..%2f..%2f..%2fetc%2fpasswd"),
        *("/static/%2e%2e/%2e%2e/app.py", "/static/..\\..\\app.py", "/static//etc/passwd", "/static/%00"),
        *("/api/images/..%2f..%2foutside%2fsecret.png/thumbnail.jpg", "/view/../outside/secret.png"),
        *("/api/images/%2e%2e/annotations", "/view/%00", "/api/images/linked.png/thumbnail.jpg"),
        *("/openapi.json", "/docs", "/api/images//tiles/0/0/0.jpg"),
    ],
)
def test_no_path_leads_out(server, target: str):
    status, body = raw(server, target)
    assert status == 404
    assert b"root:" not in body
    assert b"import" not in body


@pytest.mark.parametrize("name", ["linked.png", "linked/secret.png", "../outside/secret.png", "/etc/passwd", ""])
def test_a_link_or_path_out_of_the_folder_has_no_address(server, name: str):
    for path in (
        "thumbnail.jpg",
        "tiles/0/0/0.jpg",
        "annotations",
        f"outlines/{server.id_of(name)}/tissue",
        f"outlines/{server.id_of(HE)}/ood",
    ):
        assert server.image(name, path).status_code == 404


@pytest.mark.parametrize(
    "tile",
    [
        *("-1/0/0", "0/-1/0", "99/0/0", "0/1/0", "2/0/3", "1e3/0/0", "0x1/0/0", "0/0/999999999", "0/0/9999999999999"),
        *("0/0/٣", "0/0/0%00", "nan/0/0", "%20/0/0"),
    ],
)
def test_a_tile_out_of_range_is_refused(server, tile: str):
    for kind in ("tiles/{}.jpg", "density/{}.png"):
        answer = server.image(HE, kind.format(tile))
        assert answer.status_code == 404
        assert answer.json()["error"]


def test_a_host_of_another_name_is_not_answered(server):
    # DNS rebinding: a foreign page whose name points to this machine.
    # What follows a slash or a question mark would be taken for the address that is asked for.
    odd = ("127.0.0.1/static", "127.0.0.1?", "127.0.0.1#", "evil@127.0.0.1", "[::1", "127.0.0.1:x")
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost@evil.example:80", "", *odd):
        assert raw(server, "/", Host=host)[0] == 400
    for host in ("127.0.0.1", "localhost:9", "[::1]:8000"):
        assert raw(server, "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "OWN"},
    ],
)
def test_a_foreign_page_changes_nothing(server, headers: dict[str, str]):
    headers = {k: v.replace("OWN", server.url) for k, v in headers.items()}
    target = f"/api/images/{server.id_of(HE)}/annotations"
    assert raw(server, target, "PUT", **headers)[0] == 403


def put(server, name: str, body: bytes):
    import httpx

    address = f"{server.url}/api/images/{server.id_of(name)}/annotations"
    return httpx.put(address, content=body, headers={"Origin": server.url}, timeout=30)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"version": 0}', 400),
        (b'{"version": -1, "features": []}', 400),
        (b'{"version": true, "features": []}', 400),
        (b'{"version": 1e99, "features": []}', 400),
        (b" " * ((8 << 20) + 1), 413),
    ],
)
def test_a_malformed_or_giant_body_is_refused(server, body: bytes, status: int):
    answer = put(server, HE, body)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_names_are_shown_not_run(server):
    page = server.get("/", headers={"Accept-Language": "en"}).text
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    viewer = server.get(f"/view/{server.id_of(HOSTILE)}")
    assert viewer.status_code == 200
    assert "<img src=x" not in viewer.text
    saved = server.image(HOSTILE, "annotations.geojson").headers["content-disposition"]
    assert "<" not in saved
    query = server.get("/", params={"q": "<script>alert(1)</script>"}).text
    assert "<script>alert" not in query


def test_every_answer_forbids_foreign_and_inline_scripts(server):
    for path in ("/", f"/view/{server.id_of(HE)}", "/nothing", "/static/viewer.js"):
        policy = server.get(path).headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert server.get(path).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/nothing", "/view/x", "/?page=99999999999", "/?page=-1&q=%00"])
def test_faults_are_pages_and_sentences(server, path: str):
    answer = server.get(path)
    assert answer.status_code in (200, 404)
    assert "Traceback" not in answer.text
    assert "<h1>" in answer.text


def test_head_and_options_are_answered_without_a_body(server):
    assert raw(server, "/", "HEAD") == (200, b"")
    assert raw(server, "/view/nothing", "HEAD") == (404, b"")
    assert raw(server, "/", "OPTIONS") == (204, b"")


def test_under_the_path_of_a_proxy_every_link_stays_under_it(folder: Path, tmp_path: Path):
    from starlette.testclient import TestClient

    from restain.web import create_app

    app = create_app(Settings(folder, tmp_path, root_path="/her2"))
    with TestClient(app, base_url="http://127.0.0.1", root_path="/her2") as client:
        page = client.get("/her2/").text
        assert '<base href="/her2/">' in page
        assert not re.search(r'(?:href|src|action)="/(?!her2/)', page)
        assert client.get("/her2/static/style.css").status_code == 200
    with TestClient(app, base_url="https://127.0.0.1", root_path="/her2") as client:
        assert "max-age" in client.get("/her2/").headers["Strict-Transport-Security"]
    with pytest.raises(RestainError, match="root-path"):
        Settings(folder, tmp_path, root_path="her2/")


def test_a_long_address_is_refused(server):
    assert server.get("/?q=" + "a" * 5000).status_code == 414


def test_an_unreadable_image_says_so_without_its_place(server, folder: Path):
    for name in ("odd/broken.png",):
        for path in ("thumbnail.jpg", "tiles/0/0/0.jpg"):
            answer = server.image(name, path)
            assert answer.status_code == 422
            assert "broken.png" in answer.json()["error"]
            assert str(folder) not in answer.text


def test_labels_are_served_only_when_asked_for(server, start, tmp_path: Path):
    assert server.image(HE, "label/label.jpg").status_code == 403
    shown = start(tmp_path, show_labels=True)
    try:
        for which in ("label", "..%2f..%2fx"):
            assert shown.image(HE, f"label/{which}.jpg").status_code == 404
    finally:
        shown.stop()


def test_a_huge_declared_picture_is_refused(start, tmp_path: Path):
    root = tmp_path / "bombs"
    root.mkdir()
    # A few hundred bytes that declare 10.8 GB.
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(9000))), (b"IEND", b""))
    chunks = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts]
    (root / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    running = start(tmp_path / "state", of=root)
    try:
        assert running.get("/").status_code == 200
        assert running.image("bomb.png", "tiles/0/0/0.jpg").status_code == 422
        assert running.get(f"/view/{running.id_of('bomb.png')}").status_code == 422
    finally:
        running.stop()


@pytest.mark.parametrize("host", ["192.168.1.4", "example.org", "127.0.0.1.evil.example", "fe80::1"])
def test_an_address_that_others_reach_is_refused_without_accounts(host: str, folder: Path, tmp_path: Path):
    with pytest.raises(RestainError, match="restain accounts add"):
        serve(Settings(folder, tmp_path, host=host, port=0))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "a b", "host:80", "http://host", "host/path"])
def test_an_address_that_is_none_to_ask_for_is_refused(host: str):
    with pytest.raises(RestainError, match="--host"):
        allowed_hosts(host, [])


def test_loopback_is_this_machine_alone_unless_others_are_let_in():
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        names, reached = allowed_hosts(host, [])
        assert host in names
        assert not reached
    assert allowed_hosts("127.0.0.1", ["Stain.Hospital.example"]) == (
        ("127.0.0.1", "localhost", "::1", "stain.hospital.example"),
        True,
    )
    assert allowed_hosts("127.0.0.1", [], behind_proxy=True)[1]
    assert "0.0.0.0" not in allowed_hosts("0.0.0.0", ["192.168.1.4"])[0]


@pytest.mark.slow
def test_the_command_refuses_in_one_sentence(folder: Path, tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-m", "restain", "serve", str(folder), "--host", "0.0.0.0", "--state", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("error: --host 0.0.0.0")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(RestainError, match="not a folder"):
        Settings(tmp_path / "none", tmp_path / "state")


def test_the_state_lies_outside_of_the_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    chosen = Settings(folder)
    assert chosen.state_folder.is_relative_to(tmp_path)
    assert chosen.state_folder != Settings(folder / "odd").state_folder
