"""A handle becomes a folder on this machine, complete and checked, or an error that says why; never half a model."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import os
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import types
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import pytest
import tensorflow as tf
import tensorflow_hub

from keras_bert_trend import BertEncoder
from keras_bert_trend.sources import archive, download, load_source, load_text_source
from keras_bert_trend.sources.download import archive_sha256, resolve_handle
from tests.common import V4

EVIL = "/tmp/keras_bert_trend_evil"
KAGGLE_FORM = "kaggle:owner/model/framework/variation"


def archive_of(*members, mode="w:gz"):
    """Return a tar archive as bytes, of `(name, content)` for files and of `TarInfo` for anything else."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def member(name, kind, **attributes):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


def archive_of_v4(mode="w:gz", arcname="."):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        archive.add(V4, arcname=arcname)
    return buffer.getvalue()


MODEL = archive_of_v4()
PLAIN_MODEL = archive_of_v4("w:")
with tarfile.open(fileobj=io.BytesIO(PLAIN_MODEL)) as _archive:
    # Where `variables/` begins: what comes before looks like an archive of a model without weights.
    BOUNDARY = _archive.getmember("./variables").offset
BIT_FLIP = bytearray(MODEL)
BIT_FLIP[len(MODEL) // 2] ^= 1

LONG_HEADER = member("name", tarfile.XHDTYPE, size=2**16).tobuf() + b"9 a=1234\n".ljust(2**16, b"\0")
LONG_HEADER += member("folder", tarfile.DIRTYPE).tobuf()

UNSOUND = {
    "truncated": (MODEL[: len(MODEL) // 2], "truncated"),
    "truncated before the checksum": (MODEL[:-8], "truncated"),
    "truncated between two members": (PLAIN_MODEL[:BOUNDARY], "truncated"),
    "truncated in a member": (PLAIN_MODEL[: BOUNDARY - 1000], "truncated"),
    "truncated, then compressed": (gzip.compress(PLAIN_MODEL[:BOUNDARY]), "truncated"),
    "a flipped bit": (bytes(BIT_FLIP), "damaged"),
    "another checksum": (MODEL[:-8] + bytes(8), "damaged"),
    "garbage": (b"<html>Sign in</html>" * 100, r"is no \.tar\.gz"),
    "nothing": (b"", r"is no \.tar\.gz"),
    "no members": (gzip.compress(bytes(10240)), "without any file"),
    "parent folder": (archive_of(("a", b"a"), ("../outside", b"evil")), "refused.*'../outside'"),
    "parent folder, hidden": (archive_of(("x/../../outside", b"evil")), "refused.*'x/../../outside'"),
    "absolute name": (archive_of((EVIL, b"evil")), f"refused.*'{EVIL}'"),
    "backslashes": (archive_of(("..\\outside", b"evil")), "refused"),
    "symbolic link": (
        archive_of(member("to", tarfile.SYMTYPE, linkname="../.."), ("to/outside", b"evil")),
        "refused.*'to'.*link",
    ),
    "hard link": (archive_of(member("to", tarfile.LNKTYPE, linkname="/etc/passwd")), "refused.*'to'.*link"),
    "device": (archive_of(member("null", tarfile.CHRTYPE, devmajor=1, devminor=3)), "refused.*'null'.*device"),
    "pipe": (archive_of(member("pipe", tarfile.FIFOTYPE)), "refused.*'pipe'"),
    "same name twice": (archive_of(("a", b"a"), ("a", b"b")), "File exists"),
    "2 GiB from a few bytes": (
        gzip.compress(member("zeros", tarfile.REGTYPE, size=2 * 2**30).tobuf() + bytes(4096)),
        r"more than the 1\.0 GiB",
    ),
    "21 GiB in folders": (
        gzip.compress(member("zeros", tarfile.DIRTYPE, size=21 * 2**30).tobuf() + bytes(4096)),
        r"more than the 1\.0 GiB",
    ),
    "a header of 1 GiB": (
        gzip.compress(member("name", tarfile.XHDTYPE, size=2**30).tobuf() + bytes(4096)),
        "header of an impossible size",
    ),
    "a header of 65 KiB": (
        gzip.compress(member("name", tarfile.XHDTYPE, size=65 * 2**10).tobuf() + bytes(2**17)),
        "header of an impossible size",
    ),
    "33 MiB of headers": (gzip.compress(LONG_HEADER * 530), "header of an impossible size"),
    "a sparse file": (archive_of(member("zeros", tarfile.GNUTYPE_SPARSE)), "refused.*'zeros'.*sparse"),
    "no model": (archive_of(("README.md", b"a model"), ("vocab.txt", b"[PAD]")), "holds no model"),
    "10,001 members": (archive_of(*[member("folder", tarfile.DIRTYPE)] * 10_001), "more than 10,000 files"),
}
unsound = pytest.mark.parametrize(("body", "reason"), UNSOUND.values(), ids=UNSOUND)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache; and the test fails if anything is written beside it, or outside the test's folder."""
    folder = tmp_path / "outer" / "cache"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(folder))
    yield folder
    assert os.listdir(folder.parent) == ["cache"]
    written = os.path.exists(EVIL)
    Path(EVIL).unlink(missing_ok=True)
    assert not written


def assert_is_v4(folder):
    """Every file is there, with its content."""
    files = {path.relative_to(V4): path.read_bytes() for path in V4.rglob("*") if path.is_file()}
    assert {p.relative_to(folder): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()} == files


def assert_only_complete(cache, *folders):
    """The cache holds these folders and notes on them: nothing half-written."""
    names = {name for name in os.listdir(cache) if not name.endswith((".descriptor.txt", ".sha256"))} - {".locks"}
    assert names == {Path(folder).relative_to(cache).parts[0] for folder in folders}


class Server(http.server.ThreadingHTTPServer):
    """Hands out `body` as tfhub.dev handed out its models, or fails in the way `fault` says."""

    body = MODEL
    fault = None
    hits = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/bert/1"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.hits += 1
        assert self.path == "/bert/1?tf-hub-format=compressed"
        if isinstance(server.fault, int):
            self.send_error(server.fault)
            return
        if server.fault == "slow":
            threading.Event().wait(0.3)
        if isinstance(server.fault, str) and server.fault.startswith("to "):
            self.send_response(302)
            self.send_header("Location", server.fault[3:])
            self.end_headers()
            server.fault = None
            return
        self.send_response(200)
        body = server.body
        if server.fault in ("drips", "drips headers"):
            if server.fault == "drips":
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
            else:
                self.flush_headers()
            with contextlib.suppress(OSError):
                for byte in b"X-Header: " + bytes(200).replace(b"\0", b"x"):
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    threading.Event().wait(0.05)
            return
        if server.fault != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.fault in ("ends early", "reset"):
            body = body[: BOUNDARY if server.body is PLAIN_MODEL else len(body) // 2]
        with contextlib.suppress(ConnectionError):  # the client has seen enough
            self.wfile.write(body)
            self.wfile.flush()
        if server.fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class TestUrls:
    def test_the_model_comes_and_stays(self, server, cache):
        assert load_source(server.url).config == load_source(V4).config
        folder = resolve_handle(server.url)
        assert_is_v4(folder)
        assert_only_complete(cache, folder)
        assert server.hits == 1

    def test_the_cache_is_tensorflow_hubs(self, server):
        folder = resolve_handle(server.url)
        assert tensorflow_hub.resolve(server.url) == folder
        assert server.hits == 1

    def test_what_tensorflow_hub_downloaded_is_used(self, server):
        folder = tensorflow_hub.resolve(server.url)
        assert resolve_handle(server.url) == folder
        assert server.hits == 1

    def test_without_content_length(self, server):
        server.fault = "no length"
        assert_is_v4(resolve_handle(server.url))

    def assert_fails_then_heals(self, server, cache, *reasons):
        with pytest.raises(ValueError) as failure:
            resolve_handle(server.url)
        assert failure.match("could not be downloaded")
        assert failure.match("download the model by hand and give its folder or its .tar.gz")
        for part in (repr(server.url), KAGGLE_FORM):
            assert part in str(failure.value)
        for reason in reasons:
            assert failure.match(reason)
        assert_only_complete(cache)
        server.body, server.fault = MODEL, None
        folder = resolve_handle(server.url)
        assert_is_v4(folder)
        assert_only_complete(cache, folder)

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (403, "HTTP 403"),
            (404, "HTTP 404"),
            (500, "HTTP 500"),
            ("ends early", "the connection broke.*try again"),
            ("reset", "the connection broke.*try again"),
        ],
    )
    @pytest.mark.parametrize("body", [MODEL, PLAIN_MODEL], ids=["in the middle", "between two members"])
    def test_the_server_fails(self, server, cache, fault, reason, body):
        server.fault, server.body = fault, body
        self.assert_fails_then_heals(server, cache, reason, "tfhub.dev now redirects to Kaggle")

    @unsound
    def test_unsound_archives(self, server, cache, body, reason):
        server.body = body
        self.assert_fails_then_heals(server, cache, reason)

    def test_unsound_archive_and_no_content_length(self, server, cache):
        server.fault, server.body = "no length", PLAIN_MODEL[:BOUNDARY]
        self.assert_fails_then_heals(server, cache, "truncated")

    def test_no_server(self, cache):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
        with pytest.raises(ValueError, match=r"no connection.*redirects to Kaggle"):
            resolve_handle(f"http://127.0.0.1:{port}/bert/1")
        assert_only_complete(cache)

    def test_not_a_url(self, cache):
        with pytest.raises(ValueError, match="'https://' could not be downloaded"):
            resolve_handle("https://")

    def test_two_at_once(self, server, cache):
        server.fault = "slow"
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(resolve_handle, [server.url] * 2)
        assert first == second
        assert server.hits == 1
        assert_only_complete(cache, first)

    def test_what_a_killed_process_left_is_removed(self, server, cache):
        name = hashlib.sha1(server.url.encode()).hexdigest()
        code = f"""if True:
            import os, filelock
            os.makedirs({str(cache / ".locks")!r})
            lock = filelock.FileLock({str(cache / ".locks" / f"{name}.lock")!r})
            lock.acquire()
            os.kill(os.getpid(), 9)
        """
        assert subprocess.run([sys.executable, "-c", code]).returncode == -9
        (cache / f"{name}.partial").mkdir()
        (cache / f"{name}.partial" / "saved_model.pb").write_bytes(b"half")
        folder = resolve_handle(server.url)
        assert_is_v4(folder)
        assert_only_complete(cache, folder)

    def test_a_lock_that_is_held_is_respected(self, server, cache):
        (cache / ".locks").mkdir()
        with ThreadPoolExecutor(1) as pool:
            name = hashlib.sha1(server.url.encode()).hexdigest()
            with filelock.FileLock(cache / ".locks" / f"{name}.lock"):
                waiting = pool.submit(resolve_handle, server.url)
                with pytest.raises(TimeoutError):
                    waiting.result(timeout=0.5)
                assert server.hits == 0
            assert_is_v4(waiting.result())

    @pytest.mark.parametrize("fault", ["drips", "drips headers"])
    def test_a_server_that_drips(self, server, cache, monkeypatch, fault):
        """Each byte comes in time, and all of them never would."""
        monkeypatch.setattr(download, "SILENCE", 0.5)
        server.fault = fault
        with pytest.raises(ValueError, match=r"the connection broke \(only \d+ bytes came in"):
            resolve_handle(server.url)
        assert_only_complete(cache)

    def test_redirects(self, server, cache):
        server.fault = f"to {server.url}?tf-hub-format=compressed"
        folder = resolve_handle(server.url)
        assert_is_v4(folder)
        shutil.rmtree(folder)
        for target in ("ftp://127.0.0.1/model.tar.gz", "file:///etc/passwd"):
            server.fault = f"to {target}"
            with pytest.raises(ValueError, match=target):
                resolve_handle(server.url)
        assert_only_complete(cache)

    def test_from_https_only_to_https(self):
        follow = functools.partial(
            download._SafeRedirects().redirect_request, fp=None, code=302, msg="Found", headers={}
        )
        request = urllib.request.Request("https://host/model")
        assert follow(request, newurl="https://other/model").full_url == "https://other/model"
        with pytest.raises(ValueError, match="redirects from https to 'http://host/model'"):
            follow(request, newurl="http://host/model")

    def test_an_empty_folder_in_the_cache_is_replaced(self, server, cache):
        """`tensorflow_hub` alone makes one of an archive without members."""
        (cache / hashlib.sha1(server.url.encode()).hexdigest()).mkdir()
        assert_is_v4(resolve_handle(server.url))

    @pytest.mark.parametrize("terminal", [True, False])
    def test_progress_is_for_terminals(self, server, monkeypatch, capsys, terminal):
        monkeypatch.delenv("FORCE_COLOR", raising=False)
        if terminal:
            monkeypatch.setenv("FORCE_COLOR", "1")
            monkeypatch.setenv("COLUMNS", "200")
        resolve_handle(server.url)
        printed = capsys.readouterr()
        assert (server.url in printed.err and "kB" in printed.err) == terminal
        assert printed.out == ""


class TestArchives:
    @pytest.mark.parametrize("arcname", [".", "bert", ""], ids=["at the top", "in a folder", "without the dot"])
    @pytest.mark.parametrize(("suffix", "mode"), [(".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar", "w:")])
    def test_same_model(self, tmp_path, cache, suffix, mode, arcname):
        file = tmp_path / f"model{suffix}"
        file.write_bytes(archive_of_v4(mode, arcname))
        folder = resolve_handle(str(file))
        assert_is_v4(folder)
        assert_only_complete(cache, folder)
        assert load_source(file).config == load_source(V4).config

    def test_without_entries_for_folders(self, tmp_path):
        files = [(str(p.relative_to(V4)), p.read_bytes()) for p in sorted(V4.rglob("*")) if p.is_file()]
        (tmp_path / "model.tgz").write_bytes(archive_of(*files))
        assert_is_v4(resolve_handle(str(tmp_path / "model.tgz")))

    def test_the_content_is_the_key(self, tmp_path):
        file, other = tmp_path / "model.tar.gz", tmp_path / "copy.tgz"
        file.write_bytes(MODEL)
        folder = resolve_handle(str(file))
        unpacked = os.stat(folder).st_ino
        assert resolve_handle(str(shutil.move(file, other))) == folder
        assert os.stat(folder).st_ino == unpacked
        file.write_bytes(archive_of(("saved_model.pb", b"another model")))
        assert (Path(resolve_handle(str(file))) / "saved_model.pb").read_bytes() == b"another model"

    @unsound
    def test_unsound_archives(self, tmp_path, cache, body, reason):
        file = tmp_path / "model.tar.gz"
        file.write_bytes(body)
        with pytest.raises(ValueError, match=reason) as failure:
            resolve_handle(str(file))
        assert f"`handle` {str(file)!r} could not be unpacked" in str(failure.value)
        assert_only_complete(cache)

    def test_modes_and_owners_of_the_archive_do_not_count(self, tmp_path):
        info = member("saved_model.pb", tarfile.REGTYPE, mode=0o4777, uid=12345)
        (tmp_path / "model.tar").write_bytes(archive_of(info, mode="w:"))
        status = os.stat(Path(resolve_handle(str(tmp_path / "model.tar"))) / "saved_model.pb")
        assert status.st_mode & 0o7111 == 0
        assert status.st_uid == os.getuid()

    def test_many_at_once(self, tmp_path, cache):
        file = tmp_path / "model.tar.gz"
        file.write_bytes(MODEL)
        with ThreadPoolExecutor(4) as pool:
            folders = set(pool.map(resolve_handle, [str(file)] * 4))
        assert len(folders) == 1
        assert_only_complete(cache, *folders)

    def test_not_there(self, tmp_path):
        with pytest.raises(ValueError, match=r"nowhere\.tar\.gz' does not exist"):
            load_source(tmp_path / "nowhere.tar.gz")


class TestRemoteFileSystems:
    """`ram://` is TensorFlow's own file system in memory; `gs://` goes the same way."""

    @pytest.fixture
    def remote(self, tmp_path):
        root = f"ram://{tmp_path.name}"
        for path in V4.rglob("*"):
            if path.is_file():
                target = f"{root}/model/{path.relative_to(V4)}"
                tf.io.gfile.makedirs(os.path.dirname(target))
                with tf.io.gfile.GFile(target, "wb") as file:
                    file.write(path.read_bytes())
        with tf.io.gfile.GFile(f"{root}/packed.tar.gz", "wb") as file:
            file.write(MODEL)
        with tf.io.gfile.GFile(f"{root}/half.tar.gz", "wb") as file:
            file.write(MODEL[:1000])
        return root

    @pytest.mark.parametrize("name", ["model", "model/", "packed.tar.gz"])
    def test_same_model(self, remote, cache, name):
        folder = resolve_handle(f"{remote}/{name}")
        assert_is_v4(folder)
        assert_only_complete(cache, folder)

    def test_it_is_copied_once(self, remote):
        folder = resolve_handle(f"{remote}/model")
        tf.io.gfile.rmtree(f"{remote}/model")
        assert resolve_handle(f"{remote}/model") == folder

    def test_truncated_archive(self, remote, cache):
        with pytest.raises(ValueError, match=r"half\.tar\.gz' could not be copied.*truncated"):
            resolve_handle(f"{remote}/half.tar.gz")
        assert_only_complete(cache)

    @pytest.mark.parametrize(
        ("module", "bound", "reason"),
        [(archive, "MAX_FILES", "more than 3 files"), (download, "MAX_UNPACKED", "more than")],
    )
    def test_too_much(self, remote, cache, monkeypatch, module, bound, reason):
        monkeypatch.setattr(module, bound, 3)
        with pytest.raises(ValueError, match=f"model' could not be copied: it .*{reason}"):
            resolve_handle(f"{remote}/model")
        assert_only_complete(cache)

    def test_nothing_there(self, remote, cache):
        with pytest.raises(ValueError, match=r"nowhere' could not be copied: it is no folder and no archive"):
            resolve_handle(f"{remote}/nowhere")
        assert_only_complete(cache)

    def test_unknown_scheme(self):
        with pytest.raises(ValueError, match=r"'ftp://host/model': TensorFlow reads only .*gs://.*Give \"minilm\""):
            load_source("ftp://host/model")

    def test_file_urls_are_local(self, cache):
        assert resolve_handle(f"file://{V4}") == str(V4)
        assert_only_complete(cache)


class TestKaggle:
    @pytest.fixture
    def kagglehub(self, monkeypatch):
        """What is asked of kagglehub; it answers with V4, or raises `error`."""
        stub = types.ModuleType("kagglehub")
        stub.asked, stub.error = [], None

        def model_download(name):
            stub.asked.append(name)
            if stub.error:
                raise stub.error
            return str(V4)

        stub.model_download = model_download
        monkeypatch.setitem(sys.modules, "kagglehub", stub)
        return stub

    @pytest.mark.parametrize("version", ["", "/2"])
    def test_same_model(self, kagglehub, version):
        name = "tensorflow/bert/tensorFlow2/bert-en-uncased-l-4-h-128-a-2" + version
        assert load_source(f"kaggle:{name}").config == load_source(V4).config
        assert kagglehub.asked == [name]

    @pytest.mark.parametrize(
        "error", [RuntimeError("no such model"), urllib.request.HTTPError("", 403, "No", {}, None)]
    )
    def test_it_fails(self, kagglehub, error):
        kagglehub.error = error
        with pytest.raises(ValueError, match=r"'kaggle:a/b/c/d' could not be downloaded by kagglehub.*(no such|403)"):
            resolve_handle("kaggle:a/b/c/d")

    @pytest.mark.parametrize(
        "name", ["", "bert", "a/b/c", "a/b/c/d/e", "a/b/c/d/1/2", "a//c/d", "a/../c/d", "a/b/c/d?"]
    )
    def test_malformed(self, kagglehub, name):
        with pytest.raises(ValueError, match=rf"malformed; the form is \"{KAGGLE_FORM}\[/version\]\""):
            resolve_handle(f"kaggle:{name}")
        assert kagglehub.asked == []

    def test_not_installed_tells_the_command(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "kagglehub", None)
        with pytest.raises(ImportError, match="'kaggle:a/b/c/d' needs kagglehub: pip install kagglehub"):
            resolve_handle("kaggle:a/b/c/d")


class TestPinning:
    RIGHT, WRONG = hashlib.sha256(MODEL).hexdigest(), "0" * 64

    def test_archives(self, tmp_path, cache):
        file = tmp_path / "model.tar.gz"
        file.write_bytes(MODEL)
        for handle, sha256 in ((file, self.RIGHT), (f"{file}#sha256={self.RIGHT.upper()}", None)):
            assert load_source(handle, sha256=sha256).config == load_source(V4).config
            assert load_text_source(handle, sha256=sha256).vocabulary
        for handle, sha256 in ((file, self.WRONG), (f"{file}#sha256={self.WRONG}", None)):
            with pytest.raises(
                ValueError, match=rf"could not be unpacked: its SHA-256 is {self.RIGHT}, not {self.WRONG}"
            ):
                BertEncoder.from_handle(handle, sha256=sha256)
        with pytest.raises(ValueError, match="contradict"):
            load_source(f"{file}#sha256={self.RIGHT}", sha256=self.WRONG)

    def test_urls(self, server, cache):
        with pytest.raises(ValueError, match=f"could not be downloaded.*SHA-256 is {self.RIGHT}, not {self.WRONG}"):
            resolve_handle(server.url, self.WRONG)
        assert_only_complete(cache)
        unpinned = resolve_handle(server.url)  # whatever came: it does not count for who wants to know
        pinned = resolve_handle(server.url, self.RIGHT)
        assert_is_v4(pinned)
        assert pinned != unpinned
        assert archive_sha256(server.url) == archive_sha256(f"{server.url}#sha256={self.RIGHT}") == self.RIGHT
        assert resolve_handle(server.url, self.RIGHT) == pinned
        assert server.hits == 3

    @pytest.mark.parametrize(
        ("handle", "sha256", "reason"),
        [
            (V4, WRONG, "only an archive"),
            ("minilm", WRONG, "only an archive"),
            ("kaggle:a/b/c/d", WRONG, "only an archive"),
            ("https://host/model", "123", "64 hexadecimal digits, got '123'"),
        ],
    )
    def test_what_cannot_be_pinned(self, handle, sha256, reason):
        with pytest.raises(ValueError, match=reason):
            load_source(handle, sha256=sha256)


def test_local_paths_are_returned_as_they_are(cache):
    for path in (str(V4), str(V4 / "saved_model.pb"), "no/such/path"):
        assert resolve_handle(path) == path
    assert_only_complete(cache)
