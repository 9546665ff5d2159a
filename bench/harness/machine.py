"""What this machine is, and who else is using it."""

import glob
import os
import platform
import time

TICKS = os.sysconf("SC_CLK_TCK")
QUIET = 0.15  # cores that others may use while we measure


def cores():
    return len(os.sched_getaffinity(0))


def cpu_name():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


class Usage:
    """CPU time that processes took since this object was made."""

    def __init__(self):
        self.time, self.busy, self.processes = time.monotonic(), busy_ticks(), process_ticks()

    def others(self, own=()):
        """Cores used by everything but this process and the sessions in `own`, and the names of the largest users."""
        seconds = max(time.monotonic() - self.time, 1e-3)
        mine, users = 0, {}
        for key, (session, name, ticks) in process_ticks().items():
            used = ticks - self.processes.get(key, (0, "", 0))[2]
            if key[0] == os.getpid() or session in own:
                mine += used
            elif used > 0:
                users[name] = users.get(name, 0) + used
        scale = 1 / (TICKS * seconds)
        total = max(0, busy_ticks() - self.busy - mine) * scale
        largest = sorted(users.items(), key=lambda item: -item[1])[:3]
        return total, [f"{name} {ticks * scale:.2f}" for name, ticks in largest if ticks * scale >= 0.02]


def busy_ticks():
    """Ticks of all cores that were not idle, time taken by other virtual machines included."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return user + nice + system + irq + softirq + steal


def process_ticks():
    """(pid, start time) -> (session, name, ticks)."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                text = file.read()
        except OSError:
            continue  # it has ended
        name, fields = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        found[int(pid), int(fields[19])] = int(fields[3]), name, int(fields[11]) + int(fields[12])
    return found


def wait_for_quiet():
    """Nothing where the machine is quiet in one of three seconds, else what it is busy with."""
    for _ in range(3):
        usage = Usage()
        time.sleep(1)
        used, users = usage.others()
        if used <= QUIET:
            return None
    return f"{used:.2f} cores are used by others ({', '.join(users) or 'none that shows'}), load {os.getloadavg()[0]:.1f}"


def has_gpu():
    return bool(glob.glob("/dev/nvidia[0-9]*"))


def multiplies_bf16():
    """Whether the CPU has instructions for products in bf16."""
    with open("/proc/cpuinfo") as info:
        return any(flag in line.split() for line in info if line.startswith("flags") for flag in ("avx512_bf16", "amx_bf16"))
