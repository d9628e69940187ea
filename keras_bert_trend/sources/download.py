"""From a handle to a folder on this machine: local archives, TF Hub and Kaggle downloads, remote file systems.

Whatever is fetched or unpacked goes through `tensorflow_hub`'s cache (`TFHUB_CACHE_DIR`, else `tfhub_modules` in the
system's temporary folder) under a temporary name, and gets its final name only when it is complete and checked.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.client
import importlib.util
import os
import re
import shutil
import socket
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

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

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")
HUB_NAME = re.compile(r"([\w.-]+/)?[\w.-]+", re.ASCII)
KAGGLE_FORM = re.compile(r"(\w[\w.-]*/){3}\w[\w.-]*(/\d+)?", re.ASCII)

GIB = 2**30
MAX_MEMBERS = 10_000
MAX_UNPACKED = 20 * GIB  # BERT-large is 1.3 GiB
# Weights hardly compress, text does by 3; only zeros reach gzip's 1000. A small archive may still hold 1 GiB of them.
MAX_RATIO, ALWAYS_ALLOWED = 100, GIB
CHUNK = 2**20
MAX_READ = 16 * CHUNK
SILENCE = 60.0  # seconds without a byte from a server, after which it counts as gone

# One at a time in this process: a second thread would otherwise poll `tensorflow_hub`'s lock file every five seconds.
_FILLING = threading.RLock()


def resolve_handle(handle: str) -> str:
    """Return the path on this machine of what a handle names; fetch or unpack it into the cache where need be.

    Args:
        handle: one of

            * a local path, which is returned as it is
            * a `.tar.gz`, `.tgz` or `.tar` file of a model's folder, cached by the file's SHA-256
            * an `http(s)://` URL of a TF Hub model, on tfhub.dev, Kaggle or any other server that hands out the
              compressed SavedModel: by `tensorflow_hub.resolve` and in its cache
            * `kaggle:owner/model/framework/variation[/version]`: by `kagglehub.model_download` and in its cache
            * `gs://…` or another scheme that `tf.io.gfile` reads: a folder, or one of the archives; cached by the URL

    Returns:
        A path. Whether a model is there is not looked at, not even whether a local path exists. Where an archive or a
        download holds nothing but one folder, that folder.

    Raises:
        ValueError: a remote handle is malformed, or what it names cannot be fetched, or an archive is not sound. The
            message names the handle, the reason and what to do.
        ImportError: a `kaggle:` handle without `kagglehub`.
    """
    scheme, separator, rest = handle.partition("://")
    if scheme in ("https", "http") and separator:
        folder = _download(handle)
    elif handle.startswith("kaggle:"):
        folder = _download_from_kaggle(handle)
    elif separator and scheme == "file":
        return resolve_handle(rest)
    elif separator:
        folder = _copy_from_remote(handle)
    elif handle.lower().endswith(ARCHIVE_SUFFIXES) and os.path.isfile(handle):
        folder = _unpack_local(handle)
    else:
        return handle
    return _without_wrapping_folder(folder)


def _without_wrapping_folder(folder: str) -> str:
    entries = os.listdir(folder)
    inner = os.path.join(folder, entries[0]) if len(entries) == 1 else ""
    return inner if os.path.isdir(inner) else folder


# The cache.


def _cached(name: str, handle: str, fill: Callable[[str], None]) -> str:
    """Return the cache's folder `name`; where there is none, let `fill` write it under a temporary name first.

    `tensorflow_hub` brings what this takes between processes: a lock file, the renaming, the removal when `fill` fails.
    """
    from tensorflow_hub import resolver

    folder = os.path.join(_cache_dir(), name)
    with _FILLING:
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        _remove_abandoned(folder)
        return resolver.atomic_download(handle, lambda _, temporary: fill(temporary), folder)


def _cache_dir() -> str:
    from tensorflow_hub import resolver

    folder = resolver.tfhub_cache_dir(use_temp=True)
    if "://" in folder:  # a bucket; what is read here has to be a local file
        folder = os.path.join(tempfile.gettempdir(), "tfhub_modules")
    return folder


def _remove_abandoned(folder: str) -> None:
    """Remove what a killed process left beside `folder`; `tensorflow_hub` would wait for it for up to 20 minutes."""
    with contextlib.suppress(OSError):
        with open(folder + ".lock", encoding="utf-8", errors="replace") as file:
            owner = file.read()
        uid = owner.rpartition(".")[2]
        if uid.isalnum() and _is_gone(owner):
            shutil.rmtree(f"{folder}.{uid}.tmp", ignore_errors=True)
            os.remove(folder + ".lock")


def _is_gone(owner: str) -> bool:
    """Whether the owner of a lock, `host.pid.uid`, was a process of this machine that has ended.

    An error here costs a second download, no more: whoever is complete first gets the name.
    """
    host, _, pid = owner.rpartition(".")[0].rpartition(".")
    if os.name != "posix" or host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


# URLs.


class _CheckedUrl(str):
    """A URL that this module asks for, so that its resolver leaves everybody else's downloads alone."""


def _download(url: str) -> str:
    import tensorflow_hub

    _register_resolver()
    try:
        path = tensorflow_hub.resolve(_CheckedUrl(url))
    except Exception as error:  # urllib, http.client, tarfile and TensorFlow errors all come out of it
        advice = [_reason(error) + ".", BY_HAND]
        if not isinstance(error, ValueError) or urlsplit(url).hostname == "tfhub.dev":
            advice.insert(1, "tfhub.dev now redirects to Kaggle, where not every model is at its old address.")
        raise ValueError(f"`handle` {url!r} could not be downloaded: {' '.join(advice)}") from error
    return _copy_from_remote(path) if "://" in path else path  # TFHUB_MODEL_LOAD_FORMAT=UNCOMPRESSED gives a gs:// path


@functools.cache
def _register_resolver() -> None:
    """Give `tensorflow_hub.resolve` a resolver that checks what it downloads.

    Its own one (0.16.1) takes a download that ends early, or has a flipped bit, for complete whenever the tar archive
    then seems to end between two members, and keeps the half model in the cache for ever. It also waits without limit
    for a server that has fallen silent, and has no limit for what an archive unpacks to.
    """
    from tensorflow_hub import compressed_module_resolver, registry

    class CheckedResolver(compressed_module_resolver.HttpCompressedFileResolver):
        def is_supported(self, handle: str) -> bool:
            return isinstance(handle, _CheckedUrl) and super().is_supported(handle)

        def __call__(self, handle: str) -> str:
            # The name that `tensorflow_hub` has for it: what is in the cache already is used, by both.
            name = hashlib.sha1(handle.encode("utf-8")).hexdigest()
            return _cached(name, handle, functools.partial(self._fetch, handle))

        def _fetch(self, url: str, folder: str) -> None:
            request = urllib.request.Request(self._append_compressed_format_query(url))
            with (
                urllib.request.urlopen(request, timeout=SILENCE, context=self._context) as response,
                tempfile.TemporaryFile(dir=os.path.dirname(folder)) as file,  # nameless: a killed process leaves none
            ):
                _receive(response, file, url)
                try:
                    _unpack(file, folder)
                except ValueError as error:
                    kind = response.headers.get_content_type()
                    raise ValueError(f"the server sent {kind}; {error}") from error

    registry.resolver.add_implementation(CheckedResolver())


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


def _copy_from_remote(url: str) -> str:
    import tensorflow as tf

    schemes = sorted(f"{scheme}://" for scheme in tf.io.gfile.get_registered_schemes() if scheme)
    if url.partition("://")[0] + "://" not in schemes:
        raise ValueError(f"`handle` {url!r}: TensorFlow reads only {', '.join(schemes)} here. {HANDLE_FORMS}")
    url = url.rstrip("/")
    name = "copy-" + hashlib.sha256(url.encode("utf-8")).hexdigest()
    try:
        return _cached(name, url, functools.partial(_fetch_remote, url))
    except Exception as error:  # TensorFlow's own, one for each way to fail
        raise ValueError(f"`handle` {url!r} could not be copied: {_reason(error)}.") from error


def _fetch_remote(url: str, folder: str) -> None:
    import tensorflow as tf

    if tf.io.gfile.isdir(url):
        _copy_folder(url, folder, _Budget(MAX_UNPACKED))
    elif url.endswith(ARCHIVE_SUFFIXES) and tf.io.gfile.exists(url):
        with tempfile.TemporaryFile(dir=os.path.dirname(folder)) as file:
            _copy_file(url, file)
            _unpack(file, folder)
    else:
        raise ValueError(
            "it is no folder and no archive that can be read: it does not exist, or needs credentials, or there is no "
            "connection"
        )


def _copy_folder(source: str, target: str, budget: _Budget) -> None:
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


def _unpack_local(path: str) -> str:
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(CHUNK):
                digest.update(chunk)
            return _cached(f"archive-{digest.hexdigest()}", path, functools.partial(_unpack, file))
    except Exception as error:  # of the archive, of the disk, of TensorFlow
        raise ValueError(f"`handle` {path!r} could not be unpacked: {_reason(error)}.") from error


class _Budget:
    """How many files and bytes may still be written.

    Args:
        size: the bytes.
    """

    def __init__(self, size: int) -> None:
        self.size, self._left, self._members = size, size, MAX_MEMBERS

    def spend(self, size: int) -> None:
        self._left -= size
        self._members -= 1
        if self._left < 0:
            raise ValueError(f"it unpacks to more than the {self.size / GIB:.1f} GiB that its size is allowed")
        if self._members < 0:
            raise ValueError(f"it holds more than {MAX_MEMBERS:,} files")


class _SmallReads:
    """What `tarfile` reads from, less the headers that claim gigabytes: it would read them at once, into memory.

    Args:
        stream: the tar stream, without compression.
    """

    def __init__(self, stream: Any) -> None:
        self.seek, self.tell, self._stream = stream.seek, stream.tell, stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise ValueError("it has a header of an impossible size")
        return self._stream.read(size)


def _unpack(file: BinaryIO, folder: str) -> None:
    """Unpack a tar archive, gzipped or not, into an empty folder.

    Raises:
        ValueError: it is no archive, is damaged or truncated, holds anything but files and folders with names below
            `folder`, or too much. "It" in the message is the archive.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    stream = gzip.GzipFile(fileobj=file) if compressed else file
    budget = _Budget(min(MAX_UNPACKED, max(ALWAYS_ALLOWED, MAX_RATIO * size)))
    complaint = "it is no .tar.gz or .tar archive"
    try:
        with tarfile.open(fileobj=_SmallReads(stream), mode="r:") as archive:
            complaint = "it is a truncated or damaged archive"
            files = sum(_unpack_member(archive, member, folder, budget) for member in archive)
            _check_end(stream, archive.offset, budget)
    except EOFError as error:
        raise ValueError(f"it is a truncated archive ({error})") from error
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, RecursionError) as error:
        raise ValueError(f"{complaint} ({error})") from error
    if not files:
        raise ValueError("it is an archive without any file")


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: str, budget: _Budget) -> bool:
    """Write one member, without its owner, mode and time; return whether it is a file."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or os.path.splitdrive(member.name)[0]:
        raise ValueError(f"it is refused: its member {member.name!r} would be written outside the model's folder")
    if not (member.isreg() or member.isdir()):
        raise ValueError(f"it is refused: its member {member.name!r} is no file and no folder, but a link or a device")
    budget.spend(member.size)
    target = os.path.join(folder, *path.parts)
    if member.isdir():
        os.makedirs(target, exist_ok=True)
        return False
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with archive.extractfile(member) as source, open(target, "xb") as file:
        shutil.copyfileobj(source, file, CHUNK)
    return True


def _check_end(stream: Any, offset: int, budget: _Budget) -> None:
    """Check that the archive ends with its mark, and read the rest, so that gzip compares its checksum.

    `tarfile` takes a header that is damaged or missing for the end.
    """
    stream.seek(offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends without the end-of-archive mark")
    while chunk := stream.read(CHUNK):
        budget.spend(len(chunk))
