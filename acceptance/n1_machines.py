#!/usr/bin/env python3
"""N1: a hub and four machines, each in a network of its own; users work at random on all four, while links are cut and
machines and the hub are killed and started again.

At the end: all equal, and every completed save that no user took away is in a tree, in a version store or in a trash of
one of the machines."""
import os
import random
import subprocess
import sys
import threading
import time

from harness import Failed, Instep, check, main, run, say, wait_equal, wait_for
from ledger import Ledger, User
from s3_chaos import work_until
import trees

NAMES = ("hub", "ada", "bo", "cy", "dan")


class Network:
    """A bridge, and a network namespace for each machine with one cable to it."""

    def __init__(self, names):
        if os.geteuid() != 0:
            sys.exit("networks of their own need root: run this scenario with sudo")
        self.tag = f"ix{os.getpid() % 10000}"
        self.names = names
        self.ip("link", "add", self.tag, "type", "bridge")
        self.ip("link", "set", self.tag, "up")
        for number, name in enumerate(names, 1):
            space, cable = self.space(name), self.cable(name)
            self.ip("netns", "add", space)
            self.ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            self.ip("link", "set", cable, "master", self.tag, "up")
            self.ip("-n", space, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                self.ip("-n", space, "link", "set", device, "up")

    @staticmethod
    def ip(*args):
        run("ip", *args, path=True)

    def space(self, name):
        return f"{self.tag}-{name}"

    def cable(self, name):
        return f"{self.tag}{name}"

    def within(self, name):
        return ("ip", "netns", "exec", self.space(name))

    def cut(self, name):
        self.ip("link", "set", self.cable(name), "down")

    def mend(self, name):
        self.ip("link", "set", self.cable(name), "up")

    def shape(self, name, rate):
        """Slows what comes to a machine down; the kernel has no more than a token bucket."""
        self.ip("link", "set", self.cable(name), "up")
        args = ["tc", "qdisc", "replace", "dev", self.cable(name), "root", "tbf", "rate", rate, "burst", "32kb", "latency", "200ms"]
        run(*args, path=True)

    def unshape(self, name):
        run("tc", "qdisc", "del", "dev", self.cable(name), "root", path=True, ok=(0, 2))

    def close(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", self.space(name)], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "link", "del", self.tag], stderr=subprocess.DEVNULL)


def nemesis(rng, network, machines, hub, start_machine, start_hub, end, counts, failures):
    """Cuts, slows and kills, until it is over; then everything is whole again."""
    clients = [n for n in network.names if n != "hub"]
    while time.monotonic() < end and not failures:
        time.sleep(rng.random() * 2)
        kind = rng.choices(("cut", "half", "slow", "kill", "kill hub"), (4, 2, 2, 3, 1))[0]
        name = rng.choice(clients)
        counts[kind] = counts.get(kind, 0) + 1
        match kind:
            case "cut":
                network.cut(name)
                time.sleep(rng.choice((0.1, 1, 4)))
                network.mend(name)
            case "half":
                network.cut("hub")
                time.sleep(rng.choice((0.1, 2)))
                network.mend("hub")
            case "slow":
                network.shape(name, rng.choice(("1mbit", "10mbit", "100mbit")))
                time.sleep(rng.random() * 3)
                network.unshape(name)
            case "kill":
                machines[name].kill()
                time.sleep(rng.random())
                start_machine(name)
            case "kill hub":
                hub.kill()
                time.sleep(rng.random())
                start_hub()


def scenario(args, work):
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    say(f"seed {seed} (the users repeat, the timing does not)")
    rng = random.Random(seed)
    network = Network(NAMES)
    hub = Instep(os.path.join(work, "hub"), within=network.within("hub"))
    data, address = os.path.join(work, "hub", "kept"), "10.77.0.1"
    machines = {n: Instep(os.path.join(work, n), within=network.within(n)) for n in NAMES[1:]}
    roots = {n: os.path.join(work, n, "team") for n in machines}
    failures = []

    def start_hub():
        hub.start("serve", "--data", data, "--listen", f"{address}:8477")

    def start_machine(name):
        machines[name].start("sync", roots[name], f"sync://{address}/team")

    def code(*what):
        file = os.path.join(work, "code")
        ended, _, err = hub.call("share", "invite", "--data", data, "--token-file", file, *what)
        check(ended == 0, f"share invite ended with {ended}: {err[-300:]}")
        return file

    try:
        start_hub()
        wait_for(lambda: hub.call("share", "ls", "--data", data)[0] == 0, "the hub answers", 30)
        for number, (name, machine) in enumerate(machines.items()):
            os.makedirs(roots[name])
            with open(os.path.join(roots[name], f"own-{name}"), "w") as f:
                f.write(f"what {name} had before")
            file = code("--admin") if number == 0 else code("team")
            first = ("share", "add", "team", roots[name], "--hub", address)
            others = ("join", address, "--to", roots[name])
            machine.start(*(first if number == 0 else others), "--token-file", file, "--name", name)
            wait_for(lambda: name in hub.call("share", "ls", "--data", data)[1], f"{name} takes part", 60)
            os.remove(file)
        wait_equal(None, list(roots.values()), "equal after joining", 60)
        ledger, counts, blows = Ledger(), {}, {}
        users = [User(ledger, f"user{n}", root, os.path.join(work, "aside", n), rng.random()) for n, root in roots.items()]
        end = time.monotonic() + args.seconds
        workers = [threading.Thread(target=work_until, args=(u, random.Random(rng.random()), args.names, end, counts, failures))
                   for u in users]
        for w in workers:
            w.start()
        nemesis(rng, network, machines, hub, start_machine, start_hub, end, blows, failures)
        for w in workers:
            w.join()
        if failures:
            raise failures[0]
        say(f"{sum(counts.values())} operations {counts}; {blows}")
        approve(machines, roots)
        took = wait_equal(None, list(roots.values()), "equal at the end", args.timeout, content=True)
        say(f"all equal ({took:.1f} s)")
        for machine in machines.values():
            machine.alive()
        kept = trees.kept_tokens(list(roots.values()))
        say(ledger.sums(kept))
        lost = ledger.lost(kept)
        check(not lost, f"{len(lost)} saves are nowhere, as {list(lost.items())[:5]}")
        for name, machine in machines.items():
            check(machine.stop() == 130, f"Ctrl-C on {name} did not end with 130")
        check(hub.stop() == 130, "Ctrl-C on the hub did not end with 130")
        say("0 saves lost")
    except Failed:
        print(f"seed {seed}; logs: {[getattr(m, 'log', None) for m in (hub, *machines.values())]}")
        raise
    finally:
        failures.append(None)
        for machine in (hub, *machines.values()):
            machine.close()
        network.close()


def approve(machines, roots):
    """Random deletions may look like a disaster; here they are wanted."""
    time.sleep(3)
    for name, machine in machines.items():
        for hold in machine.holds(roots[name]):
            machine.call("holds", "approve", hold["id"], roots[name])


def options(parser):
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--names", type=int, default=12, help="names per folder: fewer meet more often")
    parser.add_argument("--timeout", type=float, default=120)


if __name__ == "__main__":
    main("n1_machines", scenario, options)
