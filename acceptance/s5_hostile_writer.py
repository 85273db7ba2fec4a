#!/usr/bin/env python3
"""S5: one user saves a file in a tight loop, another changes the same file elsewhere: no save is ever lost.

On ext4, xfs and btrfs, by rename and in place. A save that its own user overwrote is that user's; every other one must
be in a tree, in a version store or in a trash at the end."""
import os
import random
import time

from harness import Image, Instep, check, main, say, threads, wait_equal, wait_in_sync
from ledger import Ledger, User
import trees


def hammer(user, how, path, end, pause, size):
    def go():
        rng = random.Random(user.name)
        save = user.save_by_rename if how == "rename" else user.save_in_place
        while time.monotonic() < end:
            save(path, rng.randrange(size))
            # The tight loop pauses now and then, so that its saves too are displaced, not only overwritten by itself.
            if pause or rng.random() < 0.01:
                time.sleep((pause or 0.01) * rng.random())
    return go


def round_of(args, work, kind, how):
    image = Image(work, f"{kind}-{how.replace(' ', '-')}", kind, args.mib)
    instep = Instep(os.path.join(work, f"world-{kind}-{how.replace(' ', '-')}"))
    try:
        roots = [os.path.join(image.at, n) for n in "AB"]
        for root in roots:
            os.makedirs(root)
        ledger = Ledger()
        a, b = (User(ledger, n, root, os.path.join(image.at, "aside", n)) for n, root in zip(("ada", "bo"), roots))
        a.save_by_rename("f")
        instep.start("sync", *roots)
        wait_equal(instep, roots, "equal before the storm", 60)
        end = time.monotonic() + args.seconds
        threads(hammer(a, how, "f", end, 0, args.size), hammer(b, "rename", "f", end, args.pause, args.size))
        wait_equal(instep, roots, "equal after the storm", args.timeout, content=True)
        wait_in_sync(instep, roots)
        kept = trees.kept_tokens(roots)
        lost = ledger.lost(kept)
        say(f"{kind}, {how}: {ledger.sums(kept)}, {len(lost)} lost, {len(instep.conflicts(*roots))} conflicts listed")
        check(not lost, f"{kind}, {how}: {len(lost)} saves are nowhere, as {list(lost.items())[:5]}")
        check(instep.stop() == 130, "Ctrl-C did not end with 130")
    finally:
        instep.close()
        image.close()


def scenario(args, work):
    for kind in args.fs.split(","):
        for how in ("rename", "in place"):
            round_of(args, work, kind, how)


def options(parser):
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pause", type=float, default=0.04, help="the other user's longest pause")
    parser.add_argument("--size", type=int, default=8000)
    parser.add_argument("--fs", default="ext4,xfs,btrfs")
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--timeout", type=float, default=120)


if __name__ == "__main__":
    main("s5_hostile_writer", scenario, options)
