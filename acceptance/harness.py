"""Starts the real program, keeps it away from the user's own settings, and waits for conditions, never for time.

`INSTEP` names the program; without it, the release build of this repository."""
import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import trees

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Failed(Exception):
    pass


def check(condition, text):
    if not condition:
        raise Failed(text)


def say(text):
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def program():
    path = os.environ.get("INSTEP")
    if not path:
        target = os.environ.get("CARGO_TARGET_DIR", os.path.join(TOP, "target"))
        path = os.path.join(target, "release", "instep")
    if not os.access(path, os.X_OK):
        sys.exit(f"no program at {path}: cargo build --release --locked --bin instep, or set INSTEP")
    return path


def wait_for(condition, what, timeout=60.0, step=0.05):
    """Until `condition()` is true; what it last said is in the failure. Conditions return (bool, detail) or bool."""
    end = time.monotonic() + timeout
    while True:
        result = condition()
        good, detail = result if isinstance(result, tuple) else (result, "")
        if good:
            return
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {timeout:.0f} s; {detail}")
        time.sleep(step)


class Instep:
    """The program in a world of its own: home, configuration, state and runtime directories under `work`."""

    def __init__(self, work, user=None, within=()):
        """`within`: a command that runs another one somewhere else, as `ip netns exec NAME` does."""
        os.makedirs(work, exist_ok=True)
        self.work, self.user, self.process, self.number = work, user, None, 0
        self.within = list(within)
        home = os.path.join(work, "home")
        # A copy, so that everybody may run it and a new build does not change a scenario half way.
        os.makedirs(os.path.join(work, "bin"), exist_ok=True)
        self.program = shutil.copy(program(), os.path.join(work, "bin", "instep"))
        os.chmod(self.program, 0o755)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("INSTEP_", "XDG_"))}
        self.env |= {"HOME": home, "NO_COLOR": "1", "TZ": "UTC", "RUST_BACKTRACE": "1"}
        for name in ("config", "state", "data", "cache"):
            folder = os.path.join(home, name)
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self.env[f"XDG_{name.upper()}_HOME"] = folder
        self.env["XDG_RUNTIME_DIR"] = self.runtime = tempfile.mkdtemp(prefix="ix-")
        if user is not None:
            os.chown(self.runtime, user, user)
            for base, dirs, files in os.walk(home):
                for n in [".", *dirs, *files]:
                    os.lchown(os.path.join(base, n), user, user)

    def _argv(self, args):
        drop = []
        if self.user is not None:
            drop = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        return [*self.within, *drop, self.program, *map(str, args)]

    def call(self, *args, timeout=600):
        """(exit code, standard output, standard error) of a command that ends by itself."""
        p = subprocess.run(self._argv(args), env=self.env, capture_output=True, text=True, errors="replace",
                           stdin=subprocess.DEVNULL, timeout=timeout)
        check(p.returncode >= 0, f"instep {args[0]} was ended by signal {-p.returncode}: {p.stderr[-500:]}")
        check("panicked at" not in p.stderr, f"instep {args[0]} panicked: {p.stderr[-1500:]}")
        return p.returncode, p.stdout, p.stderr

    def json(self, *args):
        code, out, err = self.call(*args, "--json")
        try:
            return json.loads(out)["data"]
        except (ValueError, KeyError) as e:
            raise Failed(f"instep {' '.join(map(str, args))} --json (exit {code}): {e}; {out[:300]} {err[:300]}") from e

    def start(self, *args):
        """A live session; its output goes to a log in the work folder."""
        check(self.process is None, "a session is already running")
        self.number += 1
        self.log = os.path.join(self.work, f"session-{self.number}.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self._argv(args), env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def alive(self):
        if self.process and (code := self.process.poll()) is not None:
            raise Failed(f"the session ended by itself with {code}: {self.tail()}")

    def tail(self):
        with open(self.log, errors="replace") as f:
            return f.read()[-1500:]

    def stop(self, how=signal.SIGINT, timeout=60):
        """Asks the session to end; its exit code."""
        self.process.send_signal(how)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.process = None
            raise Failed(f"the session did not end within {timeout} s of signal {how}: {self.tail()}") from None
        self.process = None
        with open(self.log, errors="replace") as f:
            check("panicked at" not in f.read(), f"the session panicked: see {self.log}")
        return code

    def kill(self):
        """kill -9, as at the end of the world."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process = None
        shutil.rmtree(self.runtime, ignore_errors=True)

    def states(self, root):
        """All state words in `status` of a root, which tells of all its replicas."""
        found = []

        def walk(value):
            if isinstance(value, dict):
                if isinstance(value.get("state"), str):
                    found.append(value["state"].replace("_", " ").replace("-", " "))
                for v in value.values():
                    walk(v)
            elif isinstance(value, list):
                for v in value:
                    walk(v)

        walk(self.json("status", root))
        return found

    def conflicts(self, *roots):
        return rows(self.json("conflicts", "list", *roots))

    def holds(self, *roots):
        return rows(self.json("holds", "list", *roots))


def rows(data):
    """A listing is a list, or an object with one list in it."""
    if isinstance(data, dict):
        lists = [v for v in data.values() if isinstance(v, list)]
        check(len(lists) == 1, f"not a listing: {data}")
        return lists[0]
    return data


def wait_equal(instep, roots, what, timeout=120.0, content=False, ignore=trees.litter):
    """Until the trees are equal, twice in a row with a pause; with contents read at the end. Seconds it took."""
    start = time.monotonic()
    last = [None]

    def quiet():
        if instep:
            instep.alive()
        different = trees.differences(roots, content, ignore)
        if different:
            last[0] = None
            return False, f"{len(different)} differ, as {different[:3]}"
        now = time.monotonic()
        last[0] = last[0] or now
        return now - last[0] > 0.4, "equal, but not for long"

    wait_for(quiet, what, timeout, 0.2)
    took = last[0] - start
    different = trees.differences(roots, True, ignore)
    if different:
        # Still moving while the contents were read: only what is the same at rest counts.
        wait_for(lambda: (not (d := trees.differences(roots, True, ignore)), f"{len(d)} differ, as {d[:3]}"), what, 30, 0.5)
    return took


def wait_in_sync(instep, roots, timeout=60.0):
    """Until `status` says so of everything."""
    def good():
        instep.alive()
        try:
            states = instep.states(roots[0])
        except Failed as e:
            # Just started: there may be no marker yet.
            return False, str(e)
        return bool(states) and all(s == "in sync" for s in states), f"status says {states}"

    wait_for(good, "status says in sync", timeout, 0.2)


class Observer:
    """Looks at paths in a tight loop, in a process of its own: counts absences and contents that nobody wrote."""

    CODE = r"""
import os, sys, json, hashlib
paths, known = json.loads(sys.stdin.readline())
check = bool(known); known = set(known)
absent, wrong, looks = {}, {}, 0
seen = set()
os.set_blocking(0, False)
while True:
    try:
        if os.read(0, 1) is not None: break
    except BlockingIOError: pass
    for p in paths:
        looks += 1
        try:
            fd = os.open(p, os.O_RDONLY | os.O_NOATIME)
        except FileNotFoundError:
            if p in seen: absent[p] = absent.get(p, 0) + 1
            continue
        except OSError:
            continue
        seen.add(p)
        if check:
            data = b""
            while b := os.read(fd, 1 << 16): data += b
            h = hashlib.sha256(data).hexdigest()
            wrong.setdefault(p, {}).setdefault(h, len(data)) if h not in known else None
        os.close(fd)
print(json.dumps({"absent": absent, "wrong": wrong, "looks": looks, "seen": len(seen)}))
"""

    def __init__(self, paths, known=()):
        self.p = subprocess.Popen([sys.executable, "-c", self.CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.p.stdin.write(json.dumps([list(paths), list(known)]) + "\n")
        self.p.stdin.flush()

    def stop(self):
        out, _ = self.p.communicate("x", timeout=60)
        return json.loads(out)


class Image:
    """A file system in a file, on a loop device. Needs to be root, and says so."""

    def __init__(self, work, name, kind, mib=1024, options=""):
        if os.geteuid() != 0:
            sys.exit("file system images need root: run this scenario with sudo")
        self.kind, self.options = kind, options
        self.file, self.at = os.path.join(work, name + ".img"), os.path.join(work, name)
        os.makedirs(self.at, exist_ok=True)
        with open(self.file, "wb") as f:
            f.truncate(mib << 20)
        make = {"ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0"], "xfs": ["mkfs.xfs", "-q", "-f"],
                "btrfs": ["mkfs.btrfs", "-q", "-f"]}[kind]
        run(*make, self.file, path=True)
        self.mount()

    def mount(self, *extra):
        options = ",".join(o for o in ("loop", self.options, *extra) if o)
        run("mount", "-t", self.kind, "-o", options, self.file, self.at, path=True)

    def unmount(self, *flags):
        run("umount", *flags, self.at, path=True)

    def device(self):
        with open("/proc/self/mounts") as f:
            found = [line.split()[0] for line in f if line.split()[1] == self.at]
        return os.path.basename(found[-1])

    def close(self):
        while subprocess.run(["umount", "-l", self.at], stderr=subprocess.DEVNULL).returncode == 0:
            pass


def run(*argv, path=False, cwd=None, env=None, ok=(0,)):
    full = {**os.environ, **(env or {})}
    if path:
        full["PATH"] = full.get("PATH", "") + ":/usr/sbin:/sbin"
    p = subprocess.run([str(a) for a in argv], cwd=cwd, env=full, capture_output=True, text=True, errors="replace",
                       stdin=subprocess.DEVNULL)
    if p.returncode not in ok:
        raise Failed(f"{' '.join(map(str, argv))} -> {p.returncode}: {p.stderr[-500:]}")
    return p.stdout


@contextlib.contextmanager
def workplace(name, keep, base=None):
    """A fresh folder; removed after success, kept and named after a failure."""
    work = tempfile.mkdtemp(prefix=f"instep-{name}-", dir=base)
    os.chmod(work, 0o755)
    try:
        yield work
    except BaseException:
        print(f"kept: {work}", flush=True)
        raise
    else:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)


def main(name, steps, extra=lambda parser: None):
    """Runs a scenario: prints what it saw, and ends with 0 or 1."""
    parser = argparse.ArgumentParser(prog=name, description=sys.modules["__main__"].__doc__)
    parser.add_argument("--keep", action="store_true", help="keep the work folder")
    parser.add_argument("--work", default=None, help="make the work folder in this one")
    extra(parser)
    args = parser.parse_args()
    start = time.monotonic()
    try:
        with workplace(name, args.keep, args.work) as work:
            steps(args, work)
    except Failed as e:
        print(f"FAILED {name}: {e}", flush=True)
        sys.exit(1)
    print(f"passed {name} in {time.monotonic() - start:.0f} s", flush=True)


def threads(*functions):
    """Runs functions side by side; the first failure of any is raised."""
    failures = []

    def guarded(f):
        try:
            f()
        except BaseException as e:
            failures.append(e)

    started = [threading.Thread(target=guarded, args=(f,)) for f in functions]
    for t in started:
        t.start()
    for t in started:
        t.join()
    if failures:
        raise failures[0]
