#!/usr/bin/env python3
"""S3: three users work at random in three folders, while the program is killed and started again.

At the end: all equal, `status` agrees, nothing moves any more, and every completed save that no user took away is in
a tree, in a version store or in a trash."""
import os
import random
import threading
import time

from harness import Failed, Instep, check, main, say, wait_equal, wait_in_sync
from ledger import Ledger, User
import trees


def random_path(rng, names):
    depth = rng.choice((0, 1, 1, 2))
    return "/".join([f"d{rng.randrange(3)}" for _ in range(depth)] + [f"f{rng.randrange(names)}"])


def random_folder(rng):
    return "/".join(f"d{rng.randrange(3)}" for _ in range(rng.choice((1, 1, 2))))


def one_operation(user, rng, names):
    path = random_path(rng, names)
    size = rng.choice((0, 100, 5000, 200_000))
    kind = rng.choices(("rename", "in place", "delete", "move", "folder", "rm -r", "mv dir", "link", "mode"),
                       (30, 25, 8, 10, 8, 1, 4, 3, 5))[0]
    folder = os.path.dirname(path)
    if folder and kind in ("rename", "in place", "move", "link"):
        user.make_folder(folder)
    match kind:
        case "rename":
            user.save_by_rename(path, size)
        case "in place":
            user.save_in_place(path, size)
        case "delete":
            user.delete(path)
        case "move":
            user.move(random_path(rng, names), path)
        case "folder":
            user.make_folder(random_folder(rng))
        case "rm -r":
            user.delete(random_folder(rng))
        case "mv dir":
            user.move(random_folder(rng), random_folder(rng))
        case "link":
            user.make_link(path, rng.choice(("f1", "d1/f2", "nowhere")))
        case "mode":
            user.change_mode(rng.choice((path, random_folder(rng))))
    return kind


def work_until(user, rng, names, end, counts, failures):
    try:
        while time.monotonic() < end and not failures:
            kind = one_operation(user, rng, names)
            counts[kind] = counts.get(kind, 0) + 1
            # Bursts and pauses, so that the program is met idle, busy and half way.
            if rng.random() < 0.05:
                time.sleep(rng.random() * 1.5)
            elif rng.random() < 0.5:
                time.sleep(rng.random() * 0.02)
    except Exception as e:
        failures.append(e)


def scenario(args, work):
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    say(f"seed {seed} (the users repeat, the timing does not)")
    rng = random.Random(seed)
    base = os.path.join(work, "roots")
    roots = [os.path.join(base, n) for n in "ABC"]
    for root in roots:
        os.makedirs(root)
    ledger, instep = Ledger(), Instep(work)
    users = [User(ledger, f"user{n}", root, os.path.join(work, "aside", n), rng.random()) for n, root in zip("ABC", roots)]
    counts, failures, kills, ended = {}, [], 0, 0
    end = time.monotonic() + args.seconds
    workers = [threading.Thread(target=work_until, args=(u, random.Random(rng.random()), args.names, end, counts, failures))
               for u in users]
    try:
        instep.start("sync", *roots)
        for w in workers:
            w.start()
        while (left := end - time.monotonic()) > 0 and not failures:
            time.sleep(min(left, rng.choice((0.2, 1, 3, 8)) * rng.random() * 2))
            instep.alive()
            instep.kill()
            kills += 1
            time.sleep(rng.choice((0, 0, 0.5, 2)) * rng.random())
            instep.start("sync", *roots)
        for w in workers:
            w.join()
        if failures:
            raise failures[0]
        say(f"{sum(counts.values())} operations {counts}, {kills} kills")
        # What is missed counts after two seconds at the latest, and may then be held.
        time.sleep(3)
        approve_holds(instep, roots)
        wait_equal(instep, roots, "equal after the last edit", args.timeout, content=True)
        approve_holds(instep, roots)
        took = wait_equal(instep, roots, "equal at the end", args.timeout, content=True)
        wait_in_sync(instep, roots)
        say(f"equal, status says in sync ({took:.1f} s)")
        kept = trees.kept_tokens(roots)
        say(ledger.sums(kept))
        lost = ledger.lost(kept)
        check(not lost, f"{len(lost)} saves are nowhere, as {list(lost.items())[:5]}")
        before = [trees.audit(r) for r in roots]
        time.sleep(5)
        ours = b"/.instep"
        for root, then in zip(roots, before):
            now = {p: s for p, s in trees.audit(root).items() if ours not in p}
            moved = [p for p, s in now.items() if then.get(p) != s and p != os.fsencode(root)]
            check(not moved, f"something was written while all was quiet: {moved[:3]}")
        check(instep.stop() == 130, "Ctrl-C did not end with 130")
        code, _, err = instep.call("sync", "--once", *roots)
        check(code in (0, 4), f"one more pass ended with {code}: {err[-300:]}")
        check(not trees.differences(roots), "one more pass made a difference")
        conflicts = instep.conflicts(*roots)
        check(code == 0 or conflicts, "exit code 4 and no conflict is listed")
        say(f"{len(conflicts)} conflicts listed, 0 saves lost")
    except Failed:
        print(f"seed {seed}; last session: {getattr(instep, 'log', None)}")
        raise
    finally:
        failures.append(None)
        instep.close()


def approve_holds(instep, roots):
    """Random deletions may look like a disaster; here they are wanted."""
    for _ in range(20):
        holds = instep.holds(*roots)
        if not holds:
            return
        for hold in holds:
            code, _, err = instep.call("holds", "approve", hold["id"], *roots)
            check(code == 0, f"holds approve ended with {code}: {err[-300:]}")
        time.sleep(0.5)


def options(parser):
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--names", type=int, default=12, help="names per folder: fewer meet more often")
    parser.add_argument("--timeout", type=float, default=120)


if __name__ == "__main__":
    main("s3_chaos", scenario, options)
