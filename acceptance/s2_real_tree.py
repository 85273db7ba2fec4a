#!/usr/bin/env python3
"""S2: a git repository of at least 50,000 files in three folders; checkouts, edits, moves and deletions on each.

The files are real: sources and documents found on this machine, in a repository with four revisions that differ as
revisions of a big project do."""
import os
import random
import shutil
import signal
import stat

from harness import Instep, check, main, run, say, threads, wait_equal, wait_for, wait_in_sync
import trees

SOURCES = ["~/.cargo/registry/src", "/usr/share", "/usr/lib/python3", "/usr/include", "/usr/lib", "~/.rustup/toolchains"]
GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org",
       "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_OPTIONAL_LOCKS": "0"}


def git(repo, *args):
    return run("git", "-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "core.fsync=none", *args, cwd=repo, env=GIT)


def collect(repo, wanted):
    """Real files up to 64 KiB from this machine, at most 4,000 from one folder below a source."""
    count = 0
    for number, source in enumerate(map(os.path.expanduser, SOURCES)):
        for base, dirs, files in os.walk(source):
            dirs.sort()
            dirs[:] = [d for d in dirs if d != ".git"]
            relative = os.path.join(f"src{number}", os.path.relpath(base, source))
            for name in sorted(files):
                full = os.path.join(base, name)
                st = os.lstat(full)
                if not stat.S_ISREG(st.st_mode) or st.st_size > 65536 or name.startswith(".git") or trees.litter(os.fsencode(os.path.join(relative, name))):
                    continue
                folder = os.path.join(repo, relative)
                os.makedirs(folder, exist_ok=True)
                to = os.path.join(folder, name)
                shutil.copyfile(full, to)
                os.chmod(to, 0o755 if st.st_mode & 0o100 else 0o644)
                count += 1
                if count >= wanted:
                    return count
    check(count >= wanted, f"only {count} files were found on this machine; lower --files")
    return count


def tracked(repo):
    return git(repo, "ls-files", "-z").split("\0")[:-1]


def build_repository(repo, wanted):
    """Revisions r1 to r4: the import; edits and a moved folder; a deleted folder and links; many modes and edits."""
    rng = random.Random(1)
    os.makedirs(repo)
    git(repo, "init", "-q", "-b", "main")
    count = collect(repo, wanted)
    commit(repo, "r1")
    files = tracked(repo)
    for name in rng.sample(files, len(files) // 25):
        with open(os.path.join(repo, name), "ab") as f:
            f.write(b"changed in r2\n")
    a_folder = biggest(repo, files, 0.02, 0.10)
    git(repo, "mv", a_folder, "moved-in-r2")
    commit(repo, "r2")
    files = tracked(repo)
    git(repo, "rm", "-r", "-q", "--", biggest(repo, files, 0.02, 0.08))
    for i in range(50):
        os.symlink(files[i], os.path.join(repo, f"link-{i}"))
    commit(repo, "r3")
    files = [f for f in tracked(repo) if not os.path.islink(os.path.join(repo, f))]
    for name in rng.sample(files, len(files) // 20):
        os.chmod(os.path.join(repo, name), 0o755)
    for name in rng.sample(files, len(files) // 20):
        with open(os.path.join(repo, name), "r+b") as f:
            f.write(b"# r4\n")
    commit(repo, "r4")
    git(repo, "checkout", "-q", "r1")
    return count


def commit(repo, name):
    git(repo, "add", "-A", "-f")
    git(repo, "commit", "-q", "--allow-empty", "-m", name)
    git(repo, "tag", name)


def biggest(repo, files, least, most):
    """A folder with between these parts of all files below it."""
    counts = {}
    for name in files:
        folder = os.path.dirname(name)
        while folder:
            counts[folder] = counts.get(folder, 0) + 1
            folder = os.path.dirname(folder)
    fitting = [f for f, n in counts.items() if least <= n / len(files) <= most and os.path.isdir(os.path.join(repo, f))]
    check(fitting, f"no folder with {least:.0%} to {most:.0%} of the files")
    return min(fitting, key=lambda f: (-counts[f], f))


def working_files(root):
    """The tree without .git, without links."""
    return sorted(p.decode("utf-8", "surrogateescape") for p, r in trees.listing(root, content=False).items()
                  if r[0] == "file" and not p.startswith(b".git/"))


def steps_live(roots, rng):
    """(what, function) one after another; each is followed by a wait until all is equal."""
    a, b, c = roots

    def edits(root, how_many, mark):
        def go():
            for name in rng.sample(working_files(root), how_many):
                with open(os.path.join(root, name), "ab") as f:
                    f.write(mark)
        return go

    def remove(root, least, most):
        def go():
            files = working_files(root)
            folder = biggest(root, files, least, most)
            say(f"    {folder}: {sum(f.startswith(folder + '/') for f in files)} of {len(files)} files")
            shutil.rmtree(os.path.join(root, folder))
        return go

    def move(root, to):
        def go():
            folder = biggest(root, working_files(root), 0.03, 0.5)
            os.rename(os.path.join(root, folder), os.path.join(root, to))
        return go

    def everywhere():
        files = working_files(a)
        parts = [files[i::3][:60] for i in range(3)]

        def edit(root, part):
            def go():
                for name in part:
                    with open(os.path.join(root, name), "ab") as f:
                        f.write(b"edited at one of three at once\n")
            return go

        threads(*(edit(root, part) for root, part in zip(roots, parts)))

    return [
        ("200 edits on A", edits(a, 200, b"edited on A\n")),
        ("git checkout r2 on A", lambda: git(a, "checkout", "-q", "-f", "r2")),
        ("git checkout r4 on B", lambda: git(b, "checkout", "-q", "-f", "r4")),
        ("mv of a large folder on C", move(c, "moved-on-c")),
        ("rm -rf of a large folder on B", remove(b, 0.03, 0.12)),
        ("mv of a large folder on A", move(a, "moved-on-a")),
        ("edits on all three at once", everywhere),
        ("git checkout r3 on C", lambda: git(c, "checkout", "-q", "-f", "r3")),
        ("git checkout r1 on A", lambda: git(a, "checkout", "-q", "-f", "r1")),
    ]


def remove_a_third(root):
    """rm -rf of folders that hold more than 30 % of all entries together, .git counted and never touched."""
    files = sorted(p.decode("utf-8", "surrogateescape") for p in trees.listing(root, content=False))
    total = len(files)
    files = [f for f in files if not f.startswith(".git/")]
    folders, chosen, gone = [""], [], 0
    while gone < 0.3 * total:
        check(folders, "no folders with a third of the files")
        folder = folders.pop(0)
        inside = sum(f.startswith(folder + "/") for f in files) if folder else len(files)
        if gone + inside > 0.9 * len(files):
            below = os.path.join(root, folder)
            folders += sorted(os.path.join(folder, d.name) for d in os.scandir(below)
                              if d.is_dir(follow_symlinks=False) and d.name not in (".git", ".instep"))
        else:
            chosen.append(folder)
            gone += inside
    for folder in chosen:
        shutil.rmtree(os.path.join(root, folder))
    say(f"    rm -rf of {len(chosen)} folders with {gone} of {total} entries")


def held_deletion(instep, roots):
    """More than a quarter of the share is deleted live: nothing goes elsewhere until it is approved."""
    a, b, c = roots
    files = working_files(a)
    remove_a_third(a)
    left = len(working_files(a))
    wait_for(lambda: bool(instep.holds(*roots)), "a hold is listed", 60, 0.3)
    hold = instep.holds(*roots)[0]
    for root in (b, c):
        check(len(working_files(root)) == len(files), f"held deletions reached {root}")
    say(f"    held: {hold.get('id')}, {len(files) - left} deletions")
    with open(os.path.join(a, working_files(a)[0]), "ab") as f:
        f.write(b"edits keep flowing\n")
    return hold["id"]


def scenario(args, work):
    repo = os.path.join(work, "A")
    roots = [repo, os.path.join(work, "B"), os.path.join(work, "C")]
    count = build_repository(repo, args.files)
    for root in roots[1:]:
        os.makedirs(root)
    say(f"{count} files in git, {len(trees.listing(repo, False))} entries with .git")
    instep = Instep(work)
    try:
        code, _, err = instep.call("sync", "--once", *roots, timeout=1800)
        check(code == 0, f"the first pass ended with {code}: {err[-800:]}")
        different = trees.differences(roots)
        check(not different, f"after the first pass {len(different)} differ, as {different[:3]}")
        say("first pass: all three equal")
        for flags in ([], ["--poll", "1s"]):
            rng = random.Random(2)
            instep.start("sync", *flags, *roots)
            wait_in_sync(instep, roots, 300)
            for what, go in steps_live(roots, rng) if not flags else steps_live(roots, rng)[:6]:
                go()
                took = wait_equal(instep, roots, what, args.timeout)
                say(f"  {what}: equal after {took:.1f} s")
            wait_in_sync(instep, roots)
            if not flags:
                hold = held_deletion(instep, roots)
                code, _, err = instep.call("holds", "approve", hold, *roots)
                check(code == 0, f"holds approve ended with {code}: {err[-300:]}")
                wait_equal(instep, roots, "equal after the approval", args.timeout)
                wait_in_sync(instep, roots)
                say("  held deletion approved: equal")
                git(repo, "checkout", "-q", "-f", "r2")
                wait_equal(instep, roots, "checked out anew", args.timeout)
            code = instep.stop(signal.SIGINT)
            check(code == 130, f"Ctrl-C ended with {code}, not 130")
            say(f"live {' '.join(flags)}: done, stopped with 130")
        files = working_files(roots[2])
        remove_a_third(roots[2])
        code, _, err = instep.call("sync", "--once", *roots)
        check(code == 5, f"sync --once with a held deletion ended with {code}, not 5: {err[-300:]}")
        check(len(working_files(roots[0])) == len(files), "held deletions were carried out")
        for hold in instep.holds(*roots):
            code, _, err = instep.call("holds", "approve", hold["id"], *roots)
            check(code == 0, f"holds approve ended with {code}: {err[-300:]}")
        code, _, err = instep.call("sync", "--once", *roots)
        check(code == 0, f"sync --once after the approval ended with {code}: {err[-300:]}")
        different = trees.differences(roots)
        check(not different, f"at the end {len(different)} differ, as {different[:3]}")
        say("held deletion with --once: exit 5, approved, exit 0, equal")
    finally:
        instep.close()


def options(parser):
    parser.add_argument("--files", type=int, default=50000)
    parser.add_argument("--timeout", type=float, default=300.0)


if __name__ == "__main__":
    main("s2_real_tree", scenario, options)
