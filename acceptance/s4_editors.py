#!/usr/bin/env python3
"""S4: programs as they really save, while the folder is live: no spurious conflict, no deletion passed on half way.

An observer looks at the other folder in a tight loop: a path that was there is never absent, and what is in it is
always a version that was saved completely."""
import hashlib
import os
import secrets
import shutil
import time

from harness import Instep, Observer, check, main, run, say, wait_equal, wait_in_sync
import trees

GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org",
       "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_EDITOR": "true"}


def git(repo, *args):
    return run("git", "-c", "gc.auto=0", "-c", "maintenance.auto=false", *args, cwd=repo, env=GIT)


def write(path, data, mode="wb"):
    with open(path, mode) as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def text(number):
    return b"".join(b"line %d of version %d\n" % (i, number) for i in range(400 + number))


def vim(backupcopy):
    def save(path, number):
        with open(path, "rb") as f:
            before = f.read()
        script = ["set nocompatible", f"set backupcopy={backupcopy}", "set nobackup writebackup fsync", f"silent! $put ='version {number}'", "wq!"]
        # -es reads no terminal; an ending of 1 means that a command was not known to a small vim.
        run(VIM, "-N", "-u", "NONE", "-i", "NONE", "-es", *[x for c in script for x in ("-c", c)], path, ok=(0, 1))
        with open(path, "rb") as f:
            check(f.read() == before + b"version %d\n" % number, f"vim did not save with backupcopy={backupcopy}")
    return save


VIM = next((v for v in map(shutil.which, ("vim", "vim.tiny", "vi")) if v), None)


def emacs(path, number):
    """A lock that is a dangling link, an autosave, the first save's rename to a backup, then a new file."""
    folder, name = os.path.split(path)
    lock, autosave = os.path.join(folder, ".#" + name), os.path.join(folder, f"#{name}#")
    os.symlink(f"ada@example.org.{number}:1700000000", lock)
    write(autosave, text(number)[:1000])
    os.rename(path, path + "~")
    write(path, text(number))
    os.chmod(path, 0o644)
    os.unlink(autosave)
    os.unlink(lock)


def libreoffice(path, number):
    """A lock companion, a new document beside the old one, then renamed over it."""
    folder, name = os.path.split(path)
    lock, temporary = os.path.join(folder, f".~lock.{name}#"), os.path.join(folder, f"lu{number}{secrets.token_hex(3)}.tmp")
    write(lock, b",ada,host,01.01.2026 10:00,file:///home/ada;")
    write(temporary, text(number))
    os.rename(temporary, path)
    os.unlink(lock)


def libreoffice_in_place(path, number):
    """With a backup: the old one is moved away, the new one copied in, the backup removed."""
    folder, name = os.path.split(path)
    lock, backup = os.path.join(folder, f".~lock.{name}#"), os.path.join(folder, f"lu{number}.bak.tmp")
    write(lock, b",ada,host,01.01.2026 10:00,file:///home/ada;")
    os.rename(path, backup)
    write(path, text(number))
    os.unlink(backup)
    os.unlink(lock)


def gnome(path, number):
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".goutputstream-{secrets.token_hex(3).upper()}")
    write(temporary, text(number))
    if os.path.lexists(path + "~"):
        os.unlink(path + "~")
    os.link(path, path + "~")
    os.rename(temporary, path)


def sed(path, number):
    run("sed", "-i", f"s/^line 0 .*/line 0 by sed {number}/", path)


def shell(path, number):
    run("sh", "-c", f'printf "appended %s\\n" {number} >> "$1"', "sh", path)


def editors():
    found = [("emacs", emacs), ("libreoffice", libreoffice), ("libreoffice with a backup", libreoffice_in_place),
             ("gnome", gnome), ("sed -i", sed), ("shell append", shell)]
    check(VIM, "no vim here: apt-get install vim-tiny")
    return [(f"vim backupcopy={m}", vim(m)) for m in ("yes", "no", "auto")] + found


def saves(instep, roots, args):
    """Every editor saves its file again and again, sometimes faster than the other side can follow."""
    a, b = roots[:2]
    for name, save in editors():
        file = name.replace(" ", "-").replace("=", "-") + ".txt"
        write(os.path.join(a, file), text(0))
        wait_equal(instep, roots, f"{name}: the file is there", 60)
        known, rounds = [], []
        with open(os.path.join(a, file), "rb") as f:
            known.append(f.read())
        # The versions are known beforehand by saving them somewhere else first.
        rehearsal = os.path.join(os.path.dirname(a), "rehearsal")
        os.makedirs(rehearsal, exist_ok=True)
        copy = os.path.join(rehearsal, file)
        write(copy, known[0])
        for number in range(1, args.saves + 1):
            save(copy, number)
            with open(copy, "rb") as f:
                known.append(f.read())
            rounds.append(number)
        observer = Observer([os.path.join(b, file)], [hashlib.sha256(k).hexdigest() for k in known])
        for number in rounds:
            save(os.path.join(a, file), number)
            time.sleep(0.15 if number % 3 else 0)
        took = wait_equal(instep, roots, f"{name}: equal after {args.saves} saves", 60, content=True)
        seen = observer.stop()
        # A file that is written in place shows unfinished versions in its own folder too; not over there.
        check(not seen["absent"], f"{name}: absent on the other side {seen['absent']}")
        check(not seen["wrong"], f"{name}: a version that nobody completed on the other side: {seen['wrong']}")
        say(f"  {name}: {args.saves} saves, equal {took:.2f} s later, {seen['looks']} looks, none absent, none unfinished")


def rebase(instep, roots):
    """Two branches that touch the same folder; files leave and come back while git works."""
    a, b = roots[:2]
    repo = os.path.join(a, "repo")
    os.makedirs(repo)
    git(repo, "init", "-q", "-b", "main")
    for i in range(60):
        write(os.path.join(repo, f"file{i}.txt"), text(i))
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "base")
    git(repo, "checkout", "-q", "-b", "topic")
    for n in range(12):
        write(os.path.join(repo, f"file{n}.txt"), text(n) + b"topic\n")
        write(os.path.join(repo, f"topic{n}.txt"), text(n))
        git(repo, "add", "-A")
        git(repo, "commit", "-q", "-m", f"topic {n}")
    git(repo, "checkout", "-q", "main")
    for n in range(30, 42):
        write(os.path.join(repo, f"file{n}.txt"), text(n) + b"main\n")
        git(repo, "commit", "-q", "-a", "-m", f"main {n}")
    git(repo, "checkout", "-q", "topic")
    wait_equal(instep, roots, "git: the repository is there", 60)
    staying = [os.path.join(b, "repo", f"file{i}.txt") for i in range(60)]
    observer = Observer(staying)
    git(repo, "rebase", "-q", "main")
    git(repo, "rebase", "-q", "--force-rebase", "HEAD~12")
    git(repo, "gc", "-q")
    took = wait_equal(instep, roots, "git: equal after the rebase", 60, content=True)
    seen = observer.stop()
    check(not seen["absent"], f"git rebase: absent on the other side {seen['absent']}")
    for root in roots:
        there = os.path.join(root, "repo")
        check(git(there, "status", "--porcelain") == "", f"git status is not clean in {root}")
        git(there, "fsck", "--strict")
    wait_equal(instep, roots, "git: equal after status", 60)
    say(f"  git rebase and gc: equal {took:.2f} s later, none absent, fsck clean everywhere")


def archives(instep, roots):
    """tar unpacks, and unpacks again over what is there: it unlinks each file first."""
    a, b = roots[:2]
    source = os.path.join(os.path.dirname(a), "to-pack")
    for i in range(1500):
        folder = os.path.join(source, f"d{i % 30}", f"e{i % 7}")
        os.makedirs(folder, exist_ok=True)
        write_plain(os.path.join(folder, f"f{i}"), b"%d\n" % i * (i % 400))
    archive = os.path.join(os.path.dirname(a), "x.tar")
    run("tar", "cf", archive, "-C", source, ".")
    target = os.path.join(a, "unpacked")
    os.makedirs(target)
    run("tar", "xf", archive, "-C", target)
    first = wait_equal(instep, roots, "tar x: equal", 60)
    files = [os.path.join(b, "unpacked", os.fsdecode(p)) for p, r in trees.listing(target, False).items() if r[0] == "file"]
    observer = Observer(files)
    # It complains that it cannot unlink folders, and unpacks all the same.
    run("tar", "xf", archive, "--unlink-first", "-C", target, ok=(0, 2))
    run("tar", "xf", archive, "-C", target)
    again = wait_equal(instep, roots, "tar x again: equal", 60)
    seen = observer.stop()
    check(not seen["absent"], f"tar x again: {len(seen['absent'])} were absent on the other side")
    say(f"  tar x of 1500 files: equal {first:.2f} s later; again over them: {again:.2f} s, none absent")


def write_plain(path, data):
    with open(path, "wb") as f:
        f.write(data)


def builds(instep, roots):
    """cargo build writes, links and renames by the hundred."""
    cargo = shutil.which("cargo") or os.path.expanduser("~/.cargo/bin/cargo")
    check(os.access(cargo, os.X_OK), "no cargo here")
    crate = os.path.join(roots[0], "crate")
    os.makedirs(os.path.join(crate, "src"))
    write(os.path.join(crate, "Cargo.toml"), b'[package]\nname = "small"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n')
    for number in range(3):
        write(os.path.join(crate, "src", "main.rs"), b'fn main() { println!("%d"); }\n' % number)
        run(cargo, "build", "-q", "--offline", cwd=crate, env={"CARGO_TARGET_DIR": os.path.join(crate, "target"), "CARGO_INCREMENTAL": "1"})
    took = wait_equal(instep, roots, "cargo build: equal", 120, content=True)
    there = run(os.path.join(roots[1], "crate", "target", "debug", "small")).strip()
    check(there == "2", f"the program on the other side says {there!r}")
    say(f"  cargo build, three times: equal {took:.2f} s later, the program runs on the other side")


def scenario(args, work):
    base = os.path.join(work, "roots")
    roots = [os.path.join(base, n) for n in "ABC"]
    for root in roots:
        os.makedirs(root)
    instep = Instep(work)
    try:
        instep.start("sync", *roots)
        wait_in_sync(instep, roots)
        saves(instep, roots, args)
        rebase(instep, roots)
        archives(instep, roots)
        builds(instep, roots)
        wait_in_sync(instep, roots)
        conflicts = instep.conflicts(*roots)
        check(not conflicts, f"{len(conflicts)} spurious conflicts: {conflicts[:3]}")
        check(not instep.holds(*roots), "something is held")
        check(instep.stop() == 130, "Ctrl-C did not end with 130")
        say("no conflict, nothing held")
    finally:
        instep.close()


def options(parser):
    parser.add_argument("--saves", type=int, default=20)


if __name__ == "__main__":
    main("s4_editors", scenario, options)
