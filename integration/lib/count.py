"""count.py BROKEN REPORT...: adds up CTest's JUnit reports and prints the closing line of integration/check. BROKEN is how
many things failed outside CTest (a build, for example)."""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main():
    passed, failed, skipped = 0, int(sys.argv[1]), 0
    for report in sys.argv[2:]:
        if not Path(report).exists():
            continue  # counted in BROKEN
        for case in ElementTree.parse(report).iter("testcase"):
            status = case.get("status")
            name = f"{Path(report).stem.removeprefix('report-')}: {case.get('name')}"
            if status == "run":
                passed += 1
            elif status == "disabled" or (case.find("skipped") is not None and
                                          case.find("skipped").get("message", "").startswith("SKIP_")):
                skipped += 1  # said so itself; a test whose program is missing has failed
                print(f"skipped: {name}")
            else:
                failed += 1
                print(f"FAILED: {name}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(0 if failed == 0 and passed > 0 else 1)


main()
