#!/usr/bin/env python3
"""Runs FMI's benchmarks in turn with the TCP floor and prints the comparison.

Every round runs the floor and then FMI (A B A B ...), so that what disturbs the
machine for a while disturbs both. A round's figure is the median of its batches,
the table's the median of the rounds. Batches in which a wait went to sleep are
left out on both sides, because waking costs more than the transfer and says
nothing about it; where less than a quarter of the batches of one side would
remain, all of both sides are used, the line is marked with a * and not judged.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

# bytes, iterations per batch, batches, offset of the buffers from a page, name
PLANS = [
    (8, 1000, 20, 0, "8 B"),
    (65536, 200, 20, 0, "64 KiB"),
    (1048576, 30, 20, 0, "1 MiB"),
    (1048576, 30, 20, 16, "1 MiB, buffer at +16"),
]

# What FMI waits with in its default mode (design: 200 us, about four wake-ups),
# so the floor spins as long. FMI_WAIT=spin never sleeps.
SPIN_US = {"auto": 200, "yield": 200, "spin": 10**9, "park": 0}

# (pattern, plan's name) -> how much slower than the floor FMI may be
BARS = {
    ("pingpong", "8 B"): ("difference", 0.7),
    ("pingpong", "64 KiB"): ("ratio", 1.2),
    ("pingpong", "1 MiB"): ("ratio", 1.2),
    ("exchange", "1 MiB"): ("ratio", 1.25),
}
STARTUP_BAR_MS = 50
RSS_BAR_MIB = 12


def run(command, **environment):
    """The last line of JSON that the command prints, whatever the launcher puts before it."""
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, timeout=120
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    lines = [line for line in done.stdout.splitlines() if "{" in line]
    return json.loads(lines[-1][lines[-1].index("{"):])


def median(values):
    return statistics.median(values)


class Series:
    """One pattern at one size on one side: the batches of all rounds."""

    def __init__(self):
        self.rounds = []

    def add(self, times, parked):
        self.rounds.append(list(zip(times, parked)))

    def batches(self):
        return sum(map(len, self.rounds))

    def kept(self):
        return sum(not slept for batches in self.rounds for _, slept in batches)

    def mostly_asleep(self):
        return self.kept() * 4 < self.batches()

    def figure(self, with_sleepers):
        rounds = [[t for t, slept in batches if with_sleepers or not slept] for batches in self.rounds]
        return median([median(times) for times in rounds if times])


def compare(arguments, title, floor_congestion, fmi_environment):
    wait = fmi_environment.get("FMI_WAIT", "auto")
    plans = [":".join(map(str, plan[:4])) for plan in PLANS]
    floor_command = [f"{arguments.programs}/tcp_floor", str(SPIN_US[wait]), floor_congestion, *plans]
    fmi_command = [arguments.fmi, "run", "-n", "2", "--", f"{arguments.programs}/pingpong", *plans]
    series = {}
    in_force = {}
    for _ in range(arguments.rounds):
        for side, result in (("floor", run(floor_command)), ("fmi", run(fmi_command, **fmi_environment))):
            in_force[side] = result["congestion"]
            for plan, size in zip(PLANS, result["sizes"]):
                for pattern in ("pingpong", "exchange"):
                    series.setdefault((side, pattern, plan[4]), Series()).add(
                        size[pattern + "_us"], size[pattern + "_parked"]
                    )

    print(f"\n{title}: congestion control floor={in_force['floor']} fmi={in_force['fmi']}, wait={wait}")
    print(f"{'':31} {'floor us':>10} {'fmi us':>10} {'differ':>8} {'ratio':>6}  {'batches kept':14} bar")
    missed = 0
    for pattern, label in (("pingpong", "one way"), ("exchange", "both ways")):
        for name in (plan[4] for plan in PLANS):
            floor, fmi = series["floor", pattern, name], series["fmi", pattern, name]
            with_sleepers = floor.mostly_asleep() or fmi.mostly_asleep()
            floor_us, fmi_us = floor.figure(with_sleepers), fmi.figure(with_sleepers)
            bar = ""
            if (pattern, name) in BARS:
                kind, most = BARS[pattern, name]
                value = fmi_us - floor_us if kind == "difference" else fmi_us / floor_us
                met = value <= most and not with_sleepers
                missed += not met
                verdict = "met" if met else "not judged" if with_sleepers else "MISSED"
                bar = f"<= {most} {'us' if kind == 'difference' else 'x'}: {verdict}"
            kept = f"{floor.kept()}+{fmi.kept()}/{floor.batches()}"
            print(
                f"{label:10} {name:20} {floor_us:9.2f} {fmi_us:10.2f} {fmi_us - floor_us:9.2f} "
                f"{fmi_us / floor_us:6.2f}{'*' if with_sleepers else ' '} {kept:14} {bar}"
            )
    return missed


def single(arguments, program, figures):
    """Runs a program on 8 ranks; figures are (key, unit, bar, what)."""
    command = [arguments.fmi, "run", "-n", "8", "--", f"{arguments.programs}/{program}"]
    results = [run(command) for _ in range(arguments.rounds)]
    missed = 0
    for key, unit, bar, what in figures:
        values = [result[key] for result in results]
        met = median(values) <= bar
        missed += not met
        print(f"{what:60} {median(values):7.2f} {unit:3} (worst {max(values):.2f})  <= {bar}: {'met' if met else 'MISSED'}")
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fmi", required=True, help="the fmi command")
    parser.add_argument("--programs", required=True, help="where the benchmark programs are")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--congestion", default="cubic", help="what both sides use in the first table")
    parser.add_argument("--strict", action="store_true", help="fail when a bar is missed")
    arguments = parser.parse_args()

    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    print(f"{arguments.rounds} rounds, {cores} cores, Linux {platform.release()}, load before {load:.2f}")
    wait = {"FMI_WAIT": os.environ["FMI_WAIT"]} if "FMI_WAIT" in os.environ else {}
    missed = compare(
        arguments, "same on both sides", arguments.congestion, {**wait, "FMI_TCP_CONGESTION": arguments.congestion}
    )
    missed += compare(arguments, "the system's own", "system", {**wait, "FMI_TCP_CONGESTION": "system"})
    missed += compare(arguments, "as shipped against the system's own", "system", wait)
    print()
    missed += single(arguments, "startup", [
        ("slowest_rank_ms", "ms", STARTUP_BAR_MS, "first allreduce of 8 fresh ranks, slowest, from its main()"),
        ("job_ms", "ms", STARTUP_BAR_MS, "the same, from the first main() to the last result"),
    ])
    missed += single(arguments, "idle_rss", [
        ("largest_mib", "MiB", RSS_BAR_MIB, "memory of an idle rank of 8 (VmRSS, largest)"),
    ])
    if arguments.strict and missed:
        sys.exit(f"{missed} bars missed")


if __name__ == "__main__":
    main()
