"""Files on their way into memory: what lies at their beginning is used while the rest is read.

A file is copied into memory that has no name, and that nobody can write to any more once all of it
is there. Its bytes are hashed on the way and compared with the hash that was recorded. What happens
to the file on the disk after that changes nothing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pythia_bento.checkpoints.reading_threads import Hash, Readers
from pythia_bento.checkpoints.strict import MAX_JSON_BYTES
from pythia_bento.errors import CheckpointError, shown

CHUNK = 1 << 22  # bytes that are read, or hashed, at a time
AHEAD = 8 * CHUNK  # that the system is asked to read meanwhile
PIECE = 1 << 20  # that it is asked for at once: of more some systems read only the beginning
BEGIN = 1 << 17  # bytes at a file's beginning that come first: what is where stands there
END = 1 << 16  # the same at its end: its smallest tensors lie there
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")  # as of ``files.FileName``
_SIZE = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
_FUTURE_WRITE = 0x0010  # F_SEAL_FUTURE_WRITE of linux/fcntl.h, which Python 3.10 has no name for


class Folder:
    """A directory held open: all files come from this one, whatever takes its name meanwhile."""

    def __init__(self, id: str, path: Path, files: Mapping[str, str]) -> None:
        """``files`` are name -> sha256; ``id`` is what errors call the directory."""
        self.path, self.files, self._id = path, files, id
        for name in files:
            if not _NAME.fullmatch(name):
                raise self.error(f"{shown(name)} is no file of its directory")
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self.error(f"{path} cannot be read: {error.strerror}") from None
        self.close = weakref.finalize(self, os.close, self._descriptor)

    def error(self, problem: str) -> CheckpointError:
        """An error that says of what the problem is one."""
        return CheckpointError(f"{self._id} will not be served: {problem}")

    def open(self, name: str, limit: int) -> Source:
        """A file of at most ``limit`` bytes; raises CheckpointError.

        A link is followed, as installers make some: the hash says whether it leads to the right
        bytes. What is no file, or larger, is not read.
        """
        try:
            # Nobody waits for who writes to a pipe of that name.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            return Source(self, name, os.open(name, flags, dir_fd=self._descriptor), limit)
        except FileNotFoundError:
            raise self.error(f"{name} is missing") from None
        except OSError as error:
            raise self.error(f"{name} cannot be read: {error.strerror}") from None

    def read(self, name: str) -> bytes:
        """A small file, compared with its hash."""
        source = self.open(name, MAX_JSON_BYTES)
        try:
            content = bytes(source.read(memoryview(bytearray(source.size)), 0))
        finally:
            source.close()
        self.compare(name, hashlib.sha256(content).hexdigest())
        return content

    def compare(self, name: str, digest: str) -> None:
        """Raise CheckpointError unless it is the one that was recorded."""
        if digest != self.files[name]:
            raise self.error(f"{name} has sha256 {digest}, not {self.files[name]}")


class Source:
    """One file of a folder, as long as it was when it was opened."""

    def __init__(self, folder: Folder, name: str, descriptor: int, limit: int) -> None:
        self._folder, self._name, self._descriptor = folder, name, descriptor
        self.close = weakref.finalize(self, os.close, descriptor)
        facts = os.fstat(descriptor)
        self.size = facts.st_size
        problem = ""
        if not stat.S_ISREG(facts.st_mode):
            problem = "is not a file"
        elif self.size > limit:
            problem = f"has more than {limit} bytes, the limit for its kind"
        if problem:
            self.close()
            raise folder.error(f"{name} {problem}")

    def read(self, into: memoryview, start: int) -> memoryview:
        """The bytes from ``start`` on, as many as there is room for or as there are."""
        count = 0
        try:
            while more := os.preadv(self._descriptor, [into[count:]], start + count):
                count += more
        except OSError as error:
            problem = f"{self._name} cannot be read: {error.strerror}"
            raise self._folder.error(problem) from None
        return into[:count]

    def expect(self, start: int, count: int) -> None:
        """The system may read these bytes while others are hashed."""
        with suppress(OSError):  # it is a wish; not every file system knows of such
            for place in range(start, start + count, PIECE):
                os.posix_fadvise(self._descriptor, place, PIECE, os.POSIX_FADV_WILLNEED)


class Memory:
    """A file without a name that lies in memory, for whoever can only read files."""

    def __init__(self, size: int) -> None:
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        self._descriptor = os.memfd_create("pythia-weights", flags)
        self.close = weakref.finalize(self, os.close, self._descriptor)
        self.place = f"/proc/self/fd/{self._descriptor}"
        os.truncate(self._descriptor, size)
        self._add_seals(_SIZE)  # whoever maps it finds all of it

    def write(self, data: memoryview, start: int) -> None:
        """Put bytes into their place; raises MemoryError."""
        while data:
            try:
                count = os.pwrite(self._descriptor, data, start)
            except OSError as error:  # not to be taken for one of the file that is read
                raise MemoryError(f"no room for weights: {error.strerror}") from None
            data, start = data[count:], start + count

    def read(self, start: int, end: int) -> bytes:
        """Bytes that were written."""
        return os.pread(self._descriptor, end - start, start)

    def seal(self) -> None:
        """Let nobody change it from now on, not even this process.

        Nobody has mapped it to write, so future writes are all there can be. F_SEAL_WRITE says the
        same, but fails with EBUSY while the system holds one of its pages, as it does to move it.
        """
        try:
            self._add_seals(_FUTURE_WRITE | fcntl.F_SEAL_SEAL)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._add_seals(fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)  # Linux before 5.1

    def _add_seals(self, seals: int) -> None:
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, seals)


class Arrival:
    """One file, and what is there of it; written by one of the readers' threads at a time."""

    def __init__(self, folder: Folder, name: str, limit: int, readers: Readers) -> None:
        self._folder, self._name, self._readers = folder, name, readers
        self._source = folder.open(name, limit)
        self.size = self._source.size
        self.memory = Memory(self.size)
        self._beginning = 0  # bytes that are there
        self._end = self.size  # from where on they are too
        self._first = self._last = b""
        self._is_over = False
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Read both ends; the rest follows, a few files at a time."""
        try:
            self._read_ends()
            self._readers.read(self._read)
        except BaseException as error:
            self._finish(error)

    def _read_ends(self) -> None:
        self._go_on()
        self._first = self._take(0, min(BEGIN, self.size))
        start = max(len(self._first), self.size - END)
        self._last = self._take(start, self.size)
        self._tell(beginning=len(self._first), end=start)

    def _take(self, start: int, end: int) -> bytes:
        """What is used before the rest is there is hashed as it was then: it is read once."""
        data = self._source.read(memoryview(bytearray(end - start)), start)
        self.memory.write(data, start)
        return bytes(data)

    def _go_on(self) -> None:
        if self._readers.is_stopped:
            raise self._folder.error("it was given up")

    def has(self, start: int, end: int) -> bool:
        """Whether these bytes are there, or never will be."""
        is_there = end <= self._beginning or start >= self._end or self._beginning == self._end
        return self._is_over or is_there

    def wait(self, start: int, end: int) -> None:
        """Until these bytes are there; raises what keeps them from it."""
        with self._readers.news:
            self._readers.news.wait_for(lambda: self.has(start, end))
        if self._error is not None:
            raise self._error

    def verify(self) -> None:
        """Until all bytes are there and were found to be the recorded ones; raises if not."""
        with self._readers.news:
            self._readers.news.wait_for(lambda: self._is_over)
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        try:
            hash = Hash(self._readers.hashing)
            hash.update(memoryview(self._first))
            self._copy(hash)
            self._readers.note_read()
            hash.update(memoryview(self._last))
            self._folder.compare(self._name, hash.hexdigest())
            self.memory.seal()
        except BaseException as error:
            self._finish(error)
        else:
            self._finish(None)

    def _copy(self, hash: Hash) -> None:
        """All but the ends."""
        buffers = [memoryview(bytearray(min(CHUNK, self._end))) for _ in range(2)]
        start = len(self._first)
        self._source.expect(start, AHEAD)  # not sooner: the ends of other files come first
        while start < self._end:
            self._go_on()
            self._source.expect(start + AHEAD, CHUNK)
            data = self._source.read(buffers[0][: self._end - start], start)
            if not data:
                raise self._folder.error(f"{self._name} became shorter while it was read")
            self.memory.write(data, start)
            hash.update(data)
            buffers.reverse()  # what is being hashed stays as it is
            start += len(data)
            self._tell(beginning=start)

    def _tell(self, beginning: int = 0, end: int | None = None) -> None:
        with self._readers.news:
            self._beginning = max(self._beginning, beginning)
            self._end = self._end if end is None else end
            self._readers.news.notify_all()

    def _finish(self, error: BaseException | None) -> None:
        self._source.close()
        with self._readers.news:
            # Without the frames that it went through, which hold memory.
            self._error = error and error.with_traceback(None)
            self._is_over = True
            self._readers.news.notify_all()
