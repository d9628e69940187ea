"""From a handle to a folder on this machine: local archives, TF Hub and Kaggle downloads, remote file systems.

Whatever is fetched or unpacked goes into TensorFlow Hub's cache (`TFHUB_CACHE_DIR`, else `tfhub_modules` in the
system's temporary folder) under a temporary name, and gets its final name only when it is complete and checked.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import importlib.util
import io
import os
import re
import shutil
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import BinaryIO
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import filelock

from keras_bert_trend.sources.archive import ARCHIVE_SUFFIXES, CHUNK, GIB, MAX_UNPACKED, Budget, unpack
from keras_bert_trend.sources.source import sha256_of

HANDLE_FORMS = (
    'Give "minilm", the folder of a TF Hub SavedModel, of a google-research/bert checkpoint or of a Hugging Face BERT, '
    'a .tar.gz of such a folder, the URL of a TF Hub model, "kaggle:owner/model/framework/variation[/version]", or a '
    "gs:// folder."
)
NO_HUB_NAMES = (
    "If that is the name of a model on Hugging Face: nothing is downloaded from there; download config.json, vocab.txt "
    "and model.safetensors into a folder, and give the folder."
)
BY_HAND = (
    "You can download the model by hand and give its folder or its .tar.gz, or use "
    '"kaggle:owner/model/framework/variation" (`pip install kagglehub`).'
)

HUB_NAME = re.compile(r"([\w.-]+/)?[\w.-]+", re.ASCII)
KAGGLE_FORM = re.compile(r"(\w[\w.-]*/){3}\w[\w.-]*(/\d+)?", re.ASCII)
MODEL_FILES = ("saved_model.pb", "config.json", "bert_config.json")  # of these a model's folder holds one

SILENCE = 60.0  # seconds without a byte from a server, after which it counts as gone
SLOWEST = 16 * 2**10  # bytes a second on average, below which it does too


def resolve_handle(handle: str, sha256: str | None = None) -> str:
    """Return the local path of what a handle names; fetch or unpack it into the cache if necessary.

    Args:
        handle: str. One of

            * a local path, which is returned as it is
            * a `.tar.gz`, `.tgz` or `.tar` file of a model's folder, cached by the file's SHA-256
            * an `http(s)://` URL of a TF Hub model, on tfhub.dev, Kaggle or any other server that serves the
              compressed SavedModel
            * `kaggle:owner/model/framework/variation[/version]`: by `kagglehub.model_download` and in its cache
            * `gs://…` or another scheme that `tf.io.gfile` reads: a folder, or one of the archives; cached by the URL

        sha256: str or `None`. The SHA-256 that an archive, on this machine or behind a URL, must have, in hexadecimal.
            Defaults to `None`, any.

    Returns:
        A path. A local path is not checked. If an archive or a download holds nothing but one folder, that folder.

    Raises:
        ValueError: if a remote handle is malformed or cannot be fetched, or if an archive is damaged, has another
            SHA-256, or holds no model. The message names the handle, the reason and what to do.
        ImportError: if `kagglehub` is missing for a `kaggle:` handle.
    """
    scheme, separator, rest = handle.partition("://")
    if separator and scheme == "file":
        return resolve_handle(rest, sha256)
    is_archive = handle.lower().endswith(ARCHIVE_SUFFIXES) and (separator or os.path.isfile(handle))
    if sha256 and not (is_archive or scheme in ("https", "http")):
        raise ValueError(
            f"`handle` {handle!r}: only an archive ({', '.join(ARCHIVE_SUFFIXES)}) has a SHA-256 to check."
        )
    pin = sha256.lower() if sha256 else None
    if pin and not re.fullmatch("[0-9a-f]{64}", pin):
        raise ValueError(f"`sha256` must be 64 hexadecimal digits, got {sha256!r}.")
    if scheme in ("https", "http") and separator:
        folder = _download(handle, pin)
    elif handle.startswith("kaggle:"):
        folder = _download_from_kaggle(handle)
    elif separator:
        folder = _copy_from_remote(handle, pin)
    elif is_archive:
        folder = _unpack_local(handle, pin)
    else:
        return handle
    return _without_wrapping_folder(folder)


def archive_sha256(handle: str) -> str | None:
    """Return the SHA-256 of the archive that a handle names, as `resolve_handle` takes it.

    Args:
        handle: str. A handle that was resolved before.

    Returns:
        64 hexadecimal digits; `None` for what is no archive, or came into the cache by other means.
    """
    path, _, pin = handle.partition("#sha256=")
    if pin:
        return pin.lower()
    if os.path.isfile(path) and path.lower().endswith(ARCHIVE_SUFFIXES):
        with open(path, "rb") as file:
            return sha256_of(file)
    for name in (_name_of_url(path), _name_of_copy(path)):
        with contextlib.suppress(OSError), open(f"{os.path.join(_cache(), name)}.sha256", encoding="ascii") as file:
            return file.read()
    return None


def _without_wrapping_folder(folder: str) -> str:
    entries = os.listdir(folder)
    inner = os.path.join(folder, entries[0]) if len(entries) == 1 else ""
    return inner if os.path.isdir(inner) else folder


# The cache.


def _cache() -> str:
    cache = os.environ.get("TFHUB_CACHE_DIR", "")
    if not cache or "://" in cache:  # a bucket; what is read here has to be a local file
        return os.path.join(tempfile.gettempdir(), "tfhub_modules")
    return cache


def _cached(name: str, fill: Callable[[str], str | None]) -> str:
    """Return the cache's folder `name`. If there is none, let `fill` write it under a temporary name first.

    What `fill` returns, an archive's SHA-256, is kept beside it. One process at a time fills a folder. The system
    releases the lock of a process that ends, however it ends.
    """
    cache = _cache()
    folder = os.path.join(cache, name)
    if _is_filled(folder):
        return folder
    os.makedirs(os.path.join(cache, ".locks"), exist_ok=True)
    with filelock.FileLock(os.path.join(cache, ".locks", f"{name}.lock")):
        if _is_filled(folder):
            return folder
        partial = f"{folder}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        try:
            os.mkdir(partial)
            sha256 = fill(partial)
            model = _without_wrapping_folder(partial)
            if not any(os.path.isfile(os.path.join(model, file)) for file in MODEL_FILES):
                raise ValueError(f"it holds no model: none of {', '.join(MODEL_FILES)}")
            if os.path.isdir(folder):  # `tensorflow_hub` makes an empty one of an archive without members
                os.rmdir(folder)
            os.rename(partial, folder)
            if sha256:
                with open(f"{folder}.sha256", "w", encoding="ascii") as file:
                    file.write(sha256)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _is_filled(folder: str) -> bool:
    return os.path.isdir(folder) and bool(os.listdir(folder))


# URLs.


def _download(url: str, sha256: str | None) -> str:
    if os.environ.get("TFHUB_MODEL_LOAD_FORMAT") == "UNCOMPRESSED" and not sha256:
        try:
            import tensorflow_hub
        except ImportError as error:  # it imports pkg_resources, which setuptools no longer has
            raise ImportError(
                "TFHUB_MODEL_LOAD_FORMAT=UNCOMPRESSED needs tensorflow_hub, which cannot be imported "
                f'({error}): pip install "setuptools<82" tensorflow_hub, or unset the variable.'
            ) from error

        return _copy_from_remote(tensorflow_hub.resolve(url), None)
    name = f"archive-{sha256}" if sha256 else _name_of_url(url)
    try:
        return _cached(name, functools.partial(_fetch, url, sha256))
    except Exception as error:  # of urllib, http.client, the archive, the disk
        advice = [_reason(error) + ".", BY_HAND]
        if not isinstance(error, ValueError) or urlsplit(url).hostname == "tfhub.dev":
            advice.insert(1, "tfhub.dev now redirects to Kaggle, where not every model is at its old address.")
        raise ValueError(f"`handle` {url!r} could not be downloaded: {' '.join(advice)}") from error


def _name_of_url(url: str) -> str:
    """Return the name that `tensorflow_hub` has for a URL: what is in the cache already is used, by both."""
    return hashlib.sha1(url.encode("utf-8")).hexdigest()


def _fetch(url: str, sha256: str | None, folder: str) -> str:
    parts = urlsplit(url)
    query = urlencode([*parse_qsl(parts.query), ("tf-hub-format", "compressed")])
    with (
        _opener().open(urlunsplit(parts._replace(query=query)), timeout=SILENCE) as response,
        tempfile.TemporaryFile(dir=os.path.dirname(folder)) as file,  # nameless: a killed process leaves none
    ):
        _receive(response, file, url)
        try:
            return _unpack_checked(file, sha256, folder)
        except ValueError as error:
            raise ValueError(f"the server sent {response.headers.get_content_type()}; {error}") from error


def _unpack_checked(file: BinaryIO, sha256: str | None, folder: str) -> str:
    found = sha256_of(file)
    if sha256 and found != sha256:
        raise ValueError(f"its SHA-256 is {found}, not {sha256}")
    unpack(file, folder)
    return found


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        scheme = urlsplit(newurl).scheme
        if scheme not in ("https", req.type):
            raise ValueError(f"the server redirects from {req.type} to {newurl!r}, which is not safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Paced(io.RawIOBase):
    """A connection's socket that must be fast enough: a timeout alone allows one byte per minute."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw, self._begin, self._count = raw, time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer):
        count = self._raw.readinto(buffer)
        self._count += count or 0
        if time.monotonic() - self._begin > SILENCE + self._count / SLOWEST:
            raise TimeoutError(f"only {self._count:,} bytes came in {time.monotonic() - self._begin:.0f} s")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PacedResponse(http.client.HTTPResponse):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.fp = io.BufferedReader(_Paced(self.fp.detach()))


class _Connection(http.client.HTTPConnection):
    response_class = _PacedResponse


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _PacedResponse


class _Handler(urllib.request.HTTPHandler):
    def http_open(self, req):
        return self.do_open(_Connection, req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def https_open(self, req):
        context = ssl.create_default_context()
        if os.environ.get("TFHUB_DISABLE_CERT_VALIDATION") == "true":  # as `tensorflow_hub` has it
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return self.do_open(_SecureConnection, req, context=context)


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_SafeRedirects, _Handler, _SecureHandler)


def _receive(response: http.client.HTTPResponse, file: BinaryIO, url: str) -> None:
    expected, received = response.length, 0
    with _progress(url, expected) as advance:
        while chunk := response.read(CHUNK):
            received += len(chunk)
            if received > MAX_UNPACKED:
                raise ValueError(f"the server sends more than {MAX_UNPACKED // GIB} GiB")
            file.write(chunk)
            advance(len(chunk))
    if expected is not None and received != expected:  # `read` with a size does not tell
        raise ConnectionError(f"{received:,} of {expected:,} bytes came")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered HTTP {error.code} ({error.reason})"
    if isinstance(error, urllib.error.URLError):
        return f"no connection to the server ({error.reason})"
    if isinstance(error, ConnectionError | TimeoutError | http.client.HTTPException):
        return f"the connection broke ({error}); try again"
    return str(error) or type(error).__name__


@contextlib.contextmanager
def _progress(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal or in a notebook that can, and nothing in a log."""
    from rich import console, progress

    screen = console.Console(stderr=True)
    # In a notebook Rich draws with ipywidgets, and warns at every turn where they are missing.
    show = screen.is_terminal or (screen.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=screen, disable=not show) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.update(task, advance=count)


def _download_from_kaggle(handle: str) -> str:
    name = handle.removeprefix("kaggle:")
    if not KAGGLE_FORM.fullmatch(name):
        raise ValueError(
            f'`handle` {handle!r} is malformed; the form is "kaggle:owner/model/framework/variation[/version]", the '
            'version a number, such as "kaggle:tensorflow/bert/tensorFlow2/bert-en-uncased-l-4-h-128-a-2".'
        )
    try:
        import kagglehub
    except ImportError as error:
        raise ImportError(f"`handle` {handle!r} needs kagglehub: pip install kagglehub") from error
    try:
        return kagglehub.model_download(name)
    except Exception as error:  # of requests, of kagglehub, of the disk
        raise ValueError(
            f"`handle` {handle!r} could not be downloaded by kagglehub: {_reason(error)}. Look the name up on "
            "https://www.kaggle.com/models (some models want KAGGLE_USERNAME and KAGGLE_KEY, and that their licence is "
            "accepted there), or download the model by hand and give its folder or its .tar.gz."
        ) from error


# Remote file systems.


def _copy_from_remote(url: str, sha256: str | None) -> str:
    import tensorflow as tf

    schemes = sorted(f"{scheme}://" for scheme in tf.io.gfile.get_registered_schemes() if scheme)
    if url.partition("://")[0] + "://" not in schemes:
        raise ValueError(f"`handle` {url!r}: TensorFlow reads only {', '.join(schemes)} here. {HANDLE_FORMS}")
    url = url.rstrip("/")
    name = f"archive-{sha256}" if sha256 else _name_of_copy(url)
    try:
        return _cached(name, functools.partial(_fetch_remote, url, sha256))
    except Exception as error:  # TensorFlow's own, one for each way to fail
        raise ValueError(f"`handle` {url!r} could not be copied: {_reason(error)}.") from error


def _name_of_copy(url: str) -> str:
    return "copy-" + hashlib.sha256(url.rstrip("/").encode("utf-8")).hexdigest()


def _fetch_remote(url: str, sha256: str | None, folder: str) -> str | None:
    import tensorflow as tf

    if tf.io.gfile.isdir(url):
        _copy_folder(url, folder, Budget(MAX_UNPACKED))
        return None
    if url.endswith(ARCHIVE_SUFFIXES) and tf.io.gfile.exists(url):
        with tempfile.TemporaryFile(dir=os.path.dirname(folder)) as file:
            _copy_file(url, file)
            return _unpack_checked(file, sha256, folder)
    raise ValueError(
        "it is no folder and no archive that can be read: it does not exist, or needs credentials, or there is no "
        "connection"
    )


def _copy_folder(source: str, target: str, budget: Budget) -> None:
    import tensorflow as tf

    os.makedirs(target, exist_ok=True)
    for entry in tf.io.gfile.listdir(source):
        name = entry.rstrip("/")  # object stores mark folders so
        if not name:
            continue
        if name in (".", "..") or "/" in name or "\\" in name:  # object stores allow any name
            raise ValueError(f"it holds an object with the name {entry!r}, which is no file name")
        path = f"{source}/{name}"
        if tf.io.gfile.isdir(path):
            budget.spend(0)
            _copy_folder(path, os.path.join(target, name), budget)
        else:
            budget.spend(tf.io.gfile.stat(path).length)
            with open(os.path.join(target, name), "xb") as file:
                _copy_file(path, file)


def _copy_file(path: str, file: BinaryIO) -> None:
    import tensorflow as tf

    with tf.io.gfile.GFile(path, "rb") as source, _progress(path, tf.io.gfile.stat(path).length) as advance:
        while chunk := source.read(CHUNK):
            file.write(chunk)
            advance(len(chunk))


# Archives.


def _unpack_local(path: str, sha256: str | None) -> str:
    try:
        with open(path, "rb") as file:
            found = sha256_of(file)
            if sha256 not in (None, found):
                raise ValueError(f"its SHA-256 is {found}, not {sha256}")
            return _cached(f"archive-{found}", functools.partial(unpack, file))
    except Exception as error:  # of the archive, of the disk
        raise ValueError(f"`handle` {path!r} could not be unpacked: {_reason(error)}.") from error
