import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# One after the other in one process, because torch takes seconds to import; each has to find the
# packages of the repository itself.
START_ALL = """
import runpy, sys
from pathlib import Path

root, *scripts = sys.argv[1:]
plain = [place for place in sys.path if place]
for script in scripts:
    sys.path[:] = [str(Path(script).parent), *plain]
    runpy.run_path(script, run_name="benchmark")
    for name in list(sys.modules):
        place = getattr(sys.modules[name], "__file__", None) or ""
        if place.startswith(root) and "site-packages" not in place:
            del sys.modules[name]
"""


def test_every_benchmark_starts_from_any_folder(tmp_path: Path) -> None:
    scripts = sorted(map(str, (ROOT / "benchmarks").glob("*.py")))
    assert scripts
    subprocess.run([sys.executable, "-c", START_ALL, str(ROOT), *scripts], cwd=tmp_path, check=True)
