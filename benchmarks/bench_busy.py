"""What a terminal notices while one client lists, packs, unpacks or watches without pause, and how much the
server grows."""

from pathlib import Path

from .bench_listing import ENTRIES, fill
from .busy import WAYS, busy
from .context import OURS, Context
from .measure import echo_ns, percentile, resident_bytes
from .peers.base import LOAD
from .peers.runtime import Runtime
from .result import Figure

_FOLDERS = 10
_BYTES = 2048


def _plant(tree: Path, files: int) -> None:
    for number in range(files):
        folder = tree / f"folder-{number % _FOLDERS}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file-{number:05}.txt").write_bytes(bytes(_BYTES))


def run(context: Context) -> list[Figure]:
    rounds, echoes, grown = context.pick(40, 10), dict[str, float](), dict[str, float]()
    with Runtime() as peer:
        fill(peer.workspace / "many", ENTRIES)
        _plant(peer.workspace / "tree", context.pick(10_000, 2_000))
        with peer.open([LOAD, "echo"]) as terminal:
            terminal.expect(b"!")
            echoes["nothing"] = percentile(echo_ns(terminal, 50 * rounds), 99) / 1e6
            before = resident_bytes(peer.pids())
            for way in WAYS:
                samples, most = list[int](), 0
                with busy(way, peer.port, peer.token, peer.workspace):
                    for _ in range(rounds):
                        samples += echo_ns(terminal, 50)
                        most = max(most, resident_bytes(peer.pids()) - before)
                echoes[way], grown[way] = percentile(samples, 99) / 1e6, most / (1 << 20)
    echo = Figure("echo of a terminal meanwhile, 99th percentile, by what is done", "ms", echoes)
    memory = Figure(f"{OURS} grows by, by what is done", "MiB", grown)
    for way in WAYS:
        echo.demand(f"{way}: under 10 ms", echoes[way], "<", 10.0, "ms")
        memory.demand(f"{way}: under 64 MiB", grown[way], "<", 64.0, "MiB")
    return [echo, memory]
