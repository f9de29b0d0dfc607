"""How long `python app.py` takes until its page answers, and the memory it holds when idle.

    python benchmarks/start.py [--rounds 7]

Every round starts the app with the demo weights in a process of its own; the first one warms up the
disk cache and does not count. The memory is what is resident two seconds after the page came.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = ("app.py", "--weights", "demo", "--offline", "--port")
IDLE_SECONDS = 2.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def wait_for(url: str, app: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while app.poll() is None:
        try:
            opener.open(url).read()
        except urllib.error.URLError:
            time.sleep(0.01)
        else:
            return
    sys.exit(f"The app ended with status {app.returncode}.")


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def start() -> tuple[float, float]:
    port = free_port()
    began = time.perf_counter()
    app = subprocess.Popen(
        [sys.executable, *COMMAND, str(port)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/", app)
        seconds = time.perf_counter() - began
        time.sleep(IDLE_SECONDS)
        return seconds, resident_mb(app.pid)
    finally:
        app.terminate()
        app.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    _, *measured = [start() for _ in range(rounds + 1)]
    seconds, memory = (sorted(values) for values in zip(*measured, strict=True))
    print(
        f"python app.py: HTTP 200 after {statistics.median(seconds):.2f} s "
        f"({seconds[0]:.2f} to {seconds[-1]:.2f}), "
        f"idle {statistics.median(memory):.0f} MB; medians of {rounds} starts"
    )


if __name__ == "__main__":
    main()
