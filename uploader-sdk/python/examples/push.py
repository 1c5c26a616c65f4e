"""Push what is named on the command line; LONGHAUL_TICKET names the ticket."""

import sys

import longhaul

report = longhaul.push(sys.argv[1:], wait=True, on_progress=lambda p: print(p, file=sys.stderr))
for file in report.failed + report.skipped:
    print(f"{file.path}: {file.reason}", file=sys.stderr)
print(f"{len(report.files)} files, {report.bytes} bytes safe on box {report.box_id}")
sys.exit(0 if report.is_complete else 3)
