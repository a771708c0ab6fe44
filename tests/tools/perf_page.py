"""What the speed tests share: the page they publish, and the peak of memory."""

from tiltbench.records.provenance import code_identity, environment


def publish(page, lines, capsys):
    """Prints the lines and writes them to `page`, with machine and commit."""
    where, code = environment("cpu"), code_identity()
    machine = ", ".join(f"{where[key]}" for key in ("machine", "device_name", "os", "torch"))
    text = "\n".join([*lines, "", f"`make perf` on {machine}; commit {code['commit'][:12]}."])
    with capsys.disabled():
        print("\n\n" + text)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text + "\n", encoding="utf-8")


def high_water():
    """Peak resident memory in MB (Linux; getrusage would count the parent's before exec)."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
