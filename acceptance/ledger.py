"""The users' side of the story: every save they completed, and every save that they themselves took away.

A user's operations are exact about what they displace: a save swaps its file with the one at the path and reads
what came out; a deletion moves the object out of the root and reads it there. So the ledger knows of each token
whether a user superseded it; every other one must be somewhere at the end."""
import ctypes
import errno
import os
import random
import secrets
import shutil
import threading

from trees import TOKEN, tokens_in

RENAME_NOREPLACE, RENAME_EXCHANGE, AT_FDCWD = 1, 2, -100
_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old, new, flags):
    if _libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), old)


class Ledger:
    def __init__(self):
        self.lock = threading.Lock()
        self.written, self.superseded, self.number = {}, {}, 0

    def token(self, who):
        with self.lock:
            self.number += 1
            return b"TOK-%s-%d-%s" % (who.encode(), self.number, secrets.token_hex(4).encode())

    def completed(self, token, note):
        with self.lock:
            self.written[token] = note

    def gone(self, data, note):
        with self.lock:
            for token in TOKEN.findall(data):
                self.superseded.setdefault(token, note)

    def lost(self, kept):
        """Completed saves that no user took away and that are nowhere."""
        with self.lock:
            return {t: n for t, n in self.written.items() if t not in self.superseded and t not in kept}

    def sums(self, kept):
        with self.lock:
            alive = [t for t in self.written if t not in self.superseded]
            return (f"{len(self.written)} saves, {len(self.superseded)} superseded by users, "
                    f"{len(alive)} that must be kept, {sum(t in kept for t in alive)} of them found")


class User:
    """Works in one root. `aside` is a folder of the same file system outside of every root."""

    def __init__(self, ledger, name, root, aside, seed=None):
        self.ledger, self.name, self.root, self.aside = ledger, name, root, aside
        self.random = random.Random(seed)
        self.count = 0
        os.makedirs(aside, exist_ok=True)

    def _aside(self):
        self.count += 1
        return os.path.join(self.aside, f"{self.name}-{self.count}")

    def _content(self, size):
        token = self.ledger.token(self.name)
        return token, token + b"\n" + self.random.randbytes(size).hex().encode()[:size]

    def _note(self, what, path):
        return f"{what} {path} by {self.name}"

    def _read_and_drop(self, place, note):
        """What came out of the root is the user's to destroy; what was in it is superseded."""
        if os.path.isdir(place) and not os.path.islink(place):
            for token in tokens_in(place):
                self.ledger.gone(token, note)
            # The program may be writing below it through a directory it had opened: until nothing is left.
            while os.path.isdir(place):
                shutil.rmtree(place, ignore_errors=True)
            return
        if not os.path.islink(place):
            with open(place, "rb") as f:
                self.ledger.gone(f.read(), note)
        os.unlink(place)

    def save_by_rename(self, path, size=100):
        """A complete file swapped into place, as by rename(2), but with knowledge of what it displaced."""
        full, temporary = os.path.join(self.root, path), self._aside()
        token, data = self._content(size)
        with open(temporary, "wb") as f:
            f.write(data)
        # In the ledger before it is visible: it may be displaced the instant after.
        self.ledger.completed(token, self._note("rename", path))
        while True:
            try:
                renameat2(temporary, full, RENAME_NOREPLACE)
                return token
            except FileExistsError:
                pass
            except OSError:
                self.ledger.gone(token, "never saved")
                os.unlink(temporary)
                return None
            try:
                renameat2(temporary, full, RENAME_EXCHANGE)
            except FileNotFoundError:
                continue
            except OSError as e:
                if e.errno not in (errno.ENOTDIR, errno.EINVAL):
                    raise
                self.ledger.gone(token, "never saved")
                os.unlink(temporary)
                return None
            self._read_and_drop(temporary, self._note("overwritten", path))
            return token

    def save_in_place(self, path, size=100):
        """Opens, reads, truncates, writes, closes. What was read is superseded, wherever that file is by now."""
        full = os.path.join(self.root, path)
        try:
            fd = os.open(full, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError:
            return None
        try:
            token, data = self._content(size)
            self.ledger.completed(token, self._note("in place", path))
            old = b""
            while block := os.read(fd, 1 << 16):
                old += block
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, data)
            self.ledger.gone(old, self._note("overwritten in place", path))
        finally:
            os.close(fd)
        return token

    def delete(self, path):
        """A file, a link or a whole folder."""
        place = self._aside()
        try:
            os.rename(os.path.join(self.root, path), place)
        except OSError:
            return False
        self._read_and_drop(place, self._note("deleted", path))
        return True

    def move(self, path, to):
        """Never onto something else."""
        try:
            renameat2(os.path.join(self.root, path), os.path.join(self.root, to), RENAME_NOREPLACE)
            return True
        except OSError:
            return False

    def make_folder(self, path):
        try:
            os.makedirs(os.path.join(self.root, path), exist_ok=True)
            return True
        except OSError:
            return False

    def make_link(self, path, target):
        try:
            os.symlink(target, os.path.join(self.root, path))
            return True
        except OSError:
            return False

    def change_mode(self, path):
        full = os.path.join(self.root, path)
        try:
            fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            os.fchmod(fd, self.random.choice((0o644, 0o600, 0o755)) | (0o100 if os.path.isdir(full) else 0))
        finally:
            os.close(fd)
        return True
