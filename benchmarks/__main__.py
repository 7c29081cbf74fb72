"""`make bench`: every benchmark, one after the other; their JSON lies in benchmarks/results/.

`contract` runs only when named: it makes the worker follow made-up addresses.
"""

import subprocess
import sys

PROGRAMS = (
    "startup",
    "freshness",
    "similar",
    "cached",
    "large_tenant",
    "bulk_upsert",
    "event_ingest",
    "text_encoding",
    "text_precision",
    "languages",
    "image_encoder",
    "memory",
    "tenants",
    "traffic",
    "for_you",
    "behaviour",
    "learning",
    "neighbours",
    "limits",
    "overhead",
    "neighbour",
    "signup",
    "revocation",
)


def main() -> int:
    """Run all, or those named; returns how many failed to run."""
    failed = 0
    for program in sys.argv[1:] or PROGRAMS:
        print(f"\n== {program}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{program}"], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
