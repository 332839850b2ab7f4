"""Print the figures of README's tables: python -m benchmarks NAME [--json]."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    *("kernel", "build", "misaligned", "cloudy", "latency", "plan", "memory", "cluster", "write"),
    *("models", "train", "predict", "real", "sizes"),
)


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        print(f"usage: python -m benchmarks {{{' | '.join(NAMES)}}} [--json]", file=sys.stderr)
        return 2
    importlib.import_module(f"benchmarks.{sys.argv[1]}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
