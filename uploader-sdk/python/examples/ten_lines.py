"""Push the folder that is named, wait until it is verified in the cloud, and say what is missing."""
import sys

import longhaul

report = longhaul.push(sys.argv[1], wait=True)
print(len(report.files), "files are verified in the cloud")
for file in report.failed + report.skipped:
    print("missing:", file.path, file.reason)
sys.exit(0 if report.is_complete else 3)
