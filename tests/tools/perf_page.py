"""What the speed tests share: times in turns, the page they publish, and the peak of memory."""

import time

from tiltbench.records.provenance import code_identity, environment


def publish(page, lines, capsys):
    """Prints the lines and writes them to `page`, with machine and commit."""
    text = "\n".join([*lines, "", signature("cpu", "make perf")])
    with capsys.disabled():
        print("\n\n" + text)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text + "\n", encoding="utf-8")


def cpu_seconds(f, least=0.03):
    count, start = 0, time.process_time()
    while time.process_time() - start < least:
        f()
        count += 1
    return (time.process_time() - start) / count


def beside(f, g, times=9):
    """(median seconds of f, of g, median ratio g / f), measured in turns."""
    f(), g()
    pairs = sorted((cpu_seconds(f), cpu_seconds(g)) for _ in range(times))
    middle = times // 2
    return (
        sorted(a for a, _ in pairs)[middle],
        sorted(b for _, b in pairs)[middle],
        sorted(b / a for a, b in pairs)[middle],
    )


def signature(device, command, commit=""):
    """The last line of a page: what made it, on which machine, of which commit; `commit` is for a
    tree that came without its git."""
    where = environment(device)
    machine = ", ".join(f"{where[key]}" for key in ("machine", "device_name", "os", "torch"))
    commit = code_identity()["commit"] or commit or "unknown"
    return f"`{command}` on {machine}; commit {commit[:12]}."


def high_water():
    """Peak resident memory in MB (Linux; getrusage would count the parent's before exec)."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
