#!/usr/bin/env python3
"""S6: unmounted, full, forbidden, read-only, gone: nothing is deleted anywhere, the others go on, and it comes back.

Each fault on a file system image of its own, live and at the start; then every bad input: a code, and nothing changed.
The program runs as an ordinary user, because nothing is forbidden to root."""
import contextlib
import os
import shutil
import signal
import time

from harness import Image, Instep, check, main, run, say, wait_equal, wait_for, wait_in_sync
import trees

NOBODY = 65534
KINDS = ("ext4", "xfs", "btrfs")


def write(path, data):
    """As the user who runs the program, where the folder is that user's: only then can it tell a writer at work."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    if os.stat(folder).st_uid == NOBODY:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    try:
        with open(path, "wb") as f:
            f.write(data)
    finally:
        os.seteuid(0)
        os.setegid(0)
    os.chown(path, NOBODY, NOBODY)


def fill_tree(root, files=300):
    for i in range(files):
        write(os.path.join(root, f"d{i % 10}", f"f{i}"), b"file %d\n" % i * 20)
    own(root)


def own(root):
    for base, dirs, files in os.walk(root):
        for name in [".", *dirs, *files]:
            os.lchown(os.path.join(base, name), NOBODY, NOBODY)


class Place:
    """A and C on this machine's disk, B on an image; equal and live."""

    def __init__(self, work, name, kind="ext4", mib=256, live=True, options=""):
        self.work = os.path.join(work, name)
        os.makedirs(self.work)
        self.image = Image(self.work, "image", kind, mib, options)
        self.a, self.b, self.c = os.path.join(self.work, "A"), os.path.join(self.image.at, "B"), os.path.join(self.work, "C")
        self.roots = [self.a, self.b, self.c]
        for root in self.roots:
            os.makedirs(root)
            os.chown(root, NOBODY, NOBODY)
        fill_tree(self.a)
        self.instep = Instep(self.work, NOBODY)
        code, _, err = self.instep.call("sync", "--once", *self.roots)
        check(code == 0, f"the first pass ended with {code}: {err[-400:]}")
        if live:
            self.live()

    def live(self):
        self.instep.start("sync", *self.roots)
        wait_in_sync(self.instep, self.roots)

    def states(self):
        self.instep.alive()
        return self.instep.states(self.a)

    def others_go_on(self, name="goes-on", timeout=30):
        write(os.path.join(self.a, name), name.encode())
        wait_equal(self.instep, [self.a, self.c], "A and C go on", timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.instep.close()
        self.image.close()


def unmounted(work):
    for kind in KINDS:
        with Place(work, f"unmounted-{kind}", kind, mib=400) as p:
            before = trees.listing(p.a)
            p.image.unmount("-l")
            wait_for(lambda: ("offline" in p.states(), str(p.states())), "B is offline", 30, 0.2)
            check(os.listdir(p.image.at) == [], "something was created where B was mounted")
            p.others_go_on()
            now = trees.listing(p.a)
            check(all(now.get(k) == v for k, v in before.items()), "an unmounted replica deleted something elsewhere")
            p.image.mount()
            took = wait_equal(p.instep, p.roots, "B comes back by itself", 60)
            wait_in_sync(p.instep, p.roots)
            check(p.instep.stop() == 130, "Ctrl-C did not end with 130")
            say(f"  unmounted live, {kind}: offline, others went on, back {took:.1f} s after the mount")
            # And away at the start: an empty mount point is not a deletion of everything.
            p.image.unmount()
            before = trees.listing(p.a)
            code, _, err = p.instep.call("sync", "--once", *p.roots)
            now = trees.listing(p.a)
            check(now == before, f"a mount point without its file system changed A (exit {code})")
            check(os.listdir(p.image.at) == [], "something was created where B was mounted")
            check(code != 0, "a missing root was not an error")
            say(f"  unmounted at the start, {kind}: exit {code}, nothing changed")


def emptied_mount_point(work):
    """The root itself is the mount point: what is left is an empty folder without a marker."""
    with Place(work, "emptied", live=False) as p:
        p.instep.call("forget", p.b)
        p.b = p.image.at
        os.chown(p.b, NOBODY, NOBODY)
        shutil.rmtree(os.path.join(p.b, "B"))
        shutil.rmtree(os.path.join(p.b, "lost+found"), ignore_errors=True)
        p.roots = [p.a, p.b, p.c]
        code, _, err = p.instep.call("sync", "--once", *p.roots)
        check(code == 0, f"a mount point as root: {code}: {err[-400:]}")
        p.live()
        before = trees.listing(p.a)
        p.image.unmount("-l")
        wait_for(lambda: ("offline" in p.states(), str(p.states())), "B is offline", 30, 0.2)
        p.others_go_on()
        check(os.listdir(p.b) == [], "the empty mount point was written to")
        now = trees.listing(p.a)
        check(all(now.get(k) == v for k, v in before.items()), "an empty mount point deleted something elsewhere")
        p.image.mount()
        wait_equal(p.instep, p.roots, "B comes back by itself", 60)
        check(p.instep.stop() == 130, "Ctrl-C did not end with 130")
        say("  the root is the mount point: offline while unmounted, nothing written below it, back by itself")


def full(work):
    for kind in KINDS:
        with Place(work, f"full-{kind}", kind, mib=400) as p:
            filler = os.path.join(p.image.at, "filler")
            room = os.statvfs(p.image.at)
            with open(filler, "wb") as f:
                os.posix_fallocate(f.fileno(), 0, room.f_bavail * room.f_bsize - (24 << 20))
                if kind == "btrfs":
                    # What it says is free is a guess: fill it up, then give a little back.
                    size = f.seek(0, os.SEEK_END)
                    with contextlib.suppress(OSError):
                        while True:
                            size += f.write(os.urandom(1 << 20))
                            os.fsync(f.fileno())
                    f.truncate(size - (24 << 20))
            os.sync()
            write(os.path.join(p.a, "big"), os.urandom(64 << 20))
            time.sleep(1)
            write(os.path.join(p.a, "small"), b"small files go on\n")
            wait_equal(p.instep, [p.a, p.c], "A and C go on", 60)
            wait_for(lambda: os.path.exists(os.path.join(p.b, "small")), "a small file goes on to the full B", 60)
            check(not os.path.exists(os.path.join(p.b, "big")), "the big file is on a file system that is too small for it")
            check(any(s != "in sync" for s in p.states()), f"status says {p.states()} while a file waits")
            os.unlink(filler)
            took = wait_equal(p.instep, p.roots, "recovers by itself", 120)
            wait_in_sync(p.instep, p.roots)
            check(p.instep.stop() == 130, "Ctrl-C did not end with 130")
            say(f"  full {kind}: the big file waited, small ones went on, equal {took:.1f} s after there was room")


def forbidden(work):
    with Place(work, "forbidden") as p:
        before = trees.listing(p.a)
        os.chmod(os.path.join(p.b, "d3"), 0)
        write(os.path.join(p.a, "d4", "new"), b"elsewhere\n")
        wait_for(lambda: os.path.exists(os.path.join(p.b, "d4", "new")), "other folders go on", 30)
        os.chmod(os.path.join(p.a, "d5"), 0)
        time.sleep(2)
        p.others_go_on()
        now = trees.listing(p.a)
        gone = [k for k in before if k not in now]
        check(not gone, f"a folder that cannot be read deleted {gone[:3]}")
        check(len(os.listdir(os.path.join(p.c, "d3"))) == 30, "an unreadable folder on B emptied C's")
        check(len(os.listdir(os.path.join(p.c, "d5"))) == 30, "an unreadable folder on A emptied C's")
        for root in p.roots:
            for name in ("d3", "d5"):
                os.chmod(os.path.join(root, name), 0o755)
        wait_equal(p.instep, p.roots, "readable again: equal", 60)
        file = os.path.join(p.a, "d6", "f6")
        write(file, b"unreadable\n")
        os.chmod(file, 0)
        own(p.a)
        write(os.path.join(p.a, "d6", "beside"), b"readable\n")
        wait_for(lambda: os.path.exists(os.path.join(p.c, "d6", "beside")), "files beside an unreadable one go on", 30)
        check(os.path.exists(os.path.join(p.c, "d6", "f6")), "an unreadable file was deleted elsewhere")
        os.chmod(file, 0o644)
        wait_equal(p.instep, p.roots, "the file is readable again: equal", 60)
        wait_in_sync(p.instep, p.roots)
        check(p.instep.stop() == 130, "Ctrl-C did not end with 130")
        say("  chmod 000 of folders and files: nothing deleted, the rest went on, recovered")


def read_only(work):
    with Place(work, "read-only", options="errors=remount-ro") as p:
        with open(f"/sys/fs/ext4/{p.image.device()}/trigger_fs_error", "w") as f:
            f.write("a test")
        p.others_go_on()
        wait_for(lambda: (any(s != "in sync" for s in p.states()), str(p.states())), "status says that B takes nothing", 30, 0.2)
        check(not os.path.exists(os.path.join(p.b, "goes-on")), "a read-only file system was written")
        write(os.path.join(p.a, "d1", "later"), b"while it is read-only\n")
        p.instep.stop()
        p.image.unmount("-l")
        wait_for(lambda: not run("losetup", "-j", p.image.file, path=True).strip(), "the image is released", 10)
        run("e2fsck", "-f", "-y", p.image.file, path=True, ok=(0, 1, 2))
        p.image.mount()
        p.instep.start("sync", *p.roots)
        wait_equal(p.instep, p.roots, "writable again: equal", 60)
        check(p.instep.stop() == 130, "Ctrl-C did not end with 130")
        say("  an error made B read-only: it paused, others went on, equal after repair")
    for kind in KINDS:
        with Place(work, f"read-only-{kind}", kind, mib=400, live=False) as p:
            run("mount", "-o", "remount,ro", p.image.at, path=True)
            write(os.path.join(p.a, "new"), b"new\n")
            os.unlink(os.path.join(p.a, "d2", "f2"))
            p.instep.start("sync", *p.roots)
            wait_equal(p.instep, [p.a, p.c], "A and C go on", 30)
            check(not os.path.exists(os.path.join(p.b, "new")), "a read-only file system was written")
            run("mount", "-o", "remount,rw", p.image.at, path=True)
            took = wait_equal(p.instep, p.roots, "writable again: equal", 90)
            check(not os.path.exists(os.path.join(p.a, "d2", "f2")), "a read-only replica brought back what was deleted")
            wait_in_sync(p.instep, p.roots)
            check(p.instep.stop() == 130, "Ctrl-C did not end with 130")
            say(f"  read-only from the start, {kind}: others went on, equal {took:.1f} s after it was writable")


def covered(work):
    """Another file system over the root, over a folder in it, and its marker lost: offline or left alone, and back."""
    with Place(work, "covered") as p:
        before = trees.listing(p.a)
        run("mount", "-t", "tmpfs", "none", p.b, path=True)
        try:
            wait_for(lambda: ("offline" in p.states(), str(p.states())), "B is offline", 30, 0.2)
            p.others_go_on("while-covered")
            check(os.listdir(p.b) == [], "the file system that covers B was written to")
        finally:
            run("umount", p.b, path=True)
        wait_equal(p.instep, p.roots, "B comes back by itself", 60)
        wait_in_sync(p.instep, p.roots)
        inside = os.path.join(p.b, "d7")
        run("mount", "-t", "tmpfs", "-o", f"uid={NOBODY}", "none", inside, path=True)
        try:
            write(os.path.join(inside, "alien"), b"on another file system")
            write(os.path.join(p.a, "d7", "f7"), b"changed below\n")
            write(os.path.join(p.a, "d8", "beside"), b"beside\n")
            wait_for(lambda: os.path.exists(os.path.join(p.b, "d8", "beside")), "other folders go on", 30)
            wait_for(lambda: ("problem" in p.states(), str(p.states())), "the mount is listed", 30, 0.2)
            check(os.listdir(inside) == ["alien"], "a mount inside a root was crossed")
            check(p.instep.stop() == 130, "Ctrl-C did not end with 130")
            code, _, err = p.instep.call("sync", "--once", *p.roots)
            check(code == 3, f"with a mount inside: exit {code}, not 3: {err[-300:]}")
            check(os.listdir(inside) == ["alien"], "a mount inside a root was crossed")
            p.instep.start("sync", *p.roots)
            wait_for(lambda: ("problem" in p.states(), str(p.states())), "the mount is listed after a restart", 30, 0.2)
        finally:
            run("umount", inside, path=True)
        wait_equal(p.instep, p.roots, "the mount is gone: equal", 60)
        wait_in_sync(p.instep, p.roots)
        now = trees.listing(p.a)
        check(all(k in now for k in before), "a mount inside a root deleted something")
        os.rename(os.path.join(p.b, ".instep"), os.path.join(p.image.at, "aside"))
        wait_for(lambda: ("offline" in p.states(), str(p.states())), "B without its marker is offline", 10, 0.2)
        p.others_go_on("without-marker")
        check(not os.path.exists(os.path.join(p.b, ".instep")), "a lost marker was made again")
        os.rename(os.path.join(p.image.at, "aside"), os.path.join(p.b, ".instep"))
        wait_equal(p.instep, p.roots, "B has its marker again: equal", 60)
        check(p.instep.stop() == 130, "Ctrl-C did not end with 130")
        say("  covered root, mount inside, lost marker: nothing crossed or deleted, the rest went on, back by itself")


def gone(work):
    with Place(work, "gone") as p:
        before = trees.listing(p.a)
        os.rename(p.c, p.c + "-away")
        wait_for(lambda: ("offline" in p.states(), str(p.states())), "C is offline", 30, 0.2)
        write(os.path.join(p.a, "more"), b"more\n")
        wait_equal(p.instep, [p.a, p.b], "A and B go on", 30)
        check(not os.path.exists(p.c), "a missing root was created")
        check(all(trees.listing(p.a).get(k) == v for k, v in before.items()), "a missing root deleted something")
        os.mkdir(p.c)
        os.chown(p.c, NOBODY, NOBODY)
        time.sleep(2)
        check(os.listdir(p.c) == [], "an empty folder in the place of a root was written to")
        check(all(trees.listing(p.a).get(k) == v for k, v in before.items()), "an empty folder in the place of a root deleted something")
        os.rmdir(p.c)
        os.rename(p.c + "-away", p.c)
        wait_equal(p.instep, p.roots, "C comes back by itself", 60)
        wait_in_sync(p.instep, p.roots)
        check(p.instep.stop(signal.SIGTERM) == 143, "SIGTERM did not end with 143")
        say("  a root moved away, then an empty folder in its place: offline, nothing deleted, back by itself")


def bad_inputs(work):
    """Each: a code that is not 0, an error with a code and something to do, and nothing changed."""
    base = os.path.join(work, "bad")
    a, b = os.path.join(base, "a"), os.path.join(base, "b")
    fill_tree(a, 20)
    os.makedirs(b)
    os.makedirs(os.path.join(a, "inner"))
    write(os.path.join(base, "file"), b"x")
    os.symlink("a", os.path.join(base, "link-to-a"))
    closed = os.path.join(base, "closed")
    os.makedirs(closed, mode=0o000)
    empty, foreign = os.path.join(base, "empty"), os.path.join(base, "foreign")
    os.makedirs(empty)
    write(os.path.join(foreign, ".instep"), b"not ours")
    own(base)
    os.chmod(closed, 0)
    instep = Instep(os.path.join(base, "world"), NOBODY)
    own(os.path.join(base, "world"))
    cases = [
        ("the same folder twice", (2,), ["sync", "--once", a, a]),
        ("the same folder by another name", (2,), ["sync", "--once", a, os.path.join(base, "link-to-a")]),
        ("one root inside another", (2,), ["sync", "--once", a, os.path.join(a, "inner")]),
        ("a file as root", (2,), ["sync", "--once", a, os.path.join(base, "file")]),
        ("a missing root", (2, 6), ["sync", "--once", a, os.path.join(base, "missing")]),
        ("an unreadable root", (2, 7), ["sync", "--once", a, closed]),
        ("one folder alone", (2,), ["sync", "--once", a]),
        ("an unknown command", (2,), ["snyc", a, b]),
        ("an empty source", (2, 5), ["mirror", "--once", empty, a]),
        ("a name of ours made by someone else", (1, 2, 3, 7), ["sync", "--once", a, foreign]),
    ]
    watched = [a, b, empty, foreign]
    for what, codes, args in cases:
        before = [trees.audit(r) for r in watched]
        code, out, err = instep.call(*args)
        check(code in codes, f"{what}: exit {code}, not {codes}: {err[-300:]}")
        check(err.strip(), f"{what}: says nothing")
        check([trees.audit(r) for r in watched] == before, f"{what}: something was changed")
        check(not os.path.exists(os.path.join(base, "missing")), f"{what}: a missing root was created")
        say(f"  {what}: exit {code}: {err.strip().splitlines()[0][:90]}")
    before = [trees.audit(r) for r in watched]
    for args in (["plan", a, b], ["sync", "-n", a, b], ["mirror", "-n", a, b]):
        code, _, err = instep.call(*args)
        check(code in (0, 10), f"{args[0]}: exit {code}: {err[-300:]}")
        check([trees.audit(r) for r in watched] == before, f"{' '.join(args[:2])} changed something")
    say("  plan, sync -n and mirror -n: nothing created or changed")
    source = trees.audit(a)
    code, _, err = instep.call("mirror", "--once", a, b)
    check(code == 0, f"mirror: exit {code}: {err[-300:]}")
    check(trees.audit(a) == source, "mirror touched its source")
    check(not trees.differences([a, b]), "mirror did not make an exact copy")
    say("  mirror: exact, its source untouched (inode and ctime audit)")
    two(instep, base)


def two(instep, base):
    """Two sessions on one root: the second is refused and names the first; a dead one's lock does not count."""
    c, d = os.path.join(base, "c"), os.path.join(base, "d")
    for root in (c, d):
        os.makedirs(root)
        os.chown(root, NOBODY, NOBODY)
    fill_tree(c, 20)
    instep.start("sync", c, d)
    wait_in_sync(instep, [c, d])
    code, _, err = instep.call("sync", "--once", c, d)
    check(code == 8, f"a second session: exit {code}, not 8: {err[-300:]}")
    check(str(instep.process.pid) in err or "sync" in err, f"a second session does not name the first: {err[-300:]}")
    instep.kill()
    code, _, err = instep.call("sync", "--once", c, d)
    check(code == 0, f"after a kill: exit {code}: {err[-300:]}")
    say("  a second session: exit 8; after kill -9 of the first: exit 0")
    for root in (c, d):
        index = os.path.join(root, ".instep", "index.db")
        for name in (index, index + "-wal"):
            if os.path.exists(name):
                with open(name, "r+b") as f:
                    f.write(os.urandom(16384))
        break
    before = [trees.listing(r) for r in (c, d)]
    code, _, err = instep.call("sync", "--once", c, d)
    check([trees.listing(r) for r in (c, d)] == before, "a damaged index changed a tree")
    check(code in (0, 3, 11), f"a damaged index: exit {code}: {err[-300:]}")
    say(f"  a damaged index: exit {code}, both trees as they were: {err.strip().splitlines()[-1][:90] if err.strip() else ''}")


PARTS = {"unmounted": unmounted, "mount-point": emptied_mount_point, "full": full, "forbidden": forbidden, "read-only": read_only,
         "covered": covered, "gone": gone, "bad-inputs": bad_inputs}


def scenario(args, work):
    failures = []
    for name in args.parts.split(",") if args.parts else PARTS:
        say(name)
        try:
            PARTS[name](work)
        except Exception as e:
            if args.stop:
                raise
            failures.append(f"{name}: {e}")
            say(f"  FAILED: {e}")
    check(not failures, "; ".join(failures))


def options(parser):
    parser.add_argument("--parts", default="", help=",".join(PARTS))
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")


if __name__ == "__main__":
    main("s6_faults", scenario, options)
