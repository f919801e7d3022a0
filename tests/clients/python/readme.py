"""The samples of the README of the installed kurrentdbclient, in order, in one interpreter, with their own asserts.

The package carries its README as the description in its metadata. What is left out is printed with its reason.
"""

import os
import re
import sys
import threading
import traceback
from importlib.metadata import metadata

ADDRESS = os.environ["STORMKEEP_ADDRESS"]
CA = os.environ.get("STORMKEEP_CA") or None
# With TLS the client wants a user. There are none: whatever it says is accepted.
SERVER = f"admin:changeit@{ADDRESS}?Tls=true&TlsCaFile={CA}" if CA else f"{ADDRESS}?Tls=false"

# Chapters on what Stormkeep does not have, and what needs more than a server.
LEFT_OUT = {
    "Multi-append to stream": "appends to several streams (KurrentDB 25.1) are not there",
    "Append records": "appends to several streams (KurrentDB 26.1) are not there",
    "Projections": "projections are not there",
    "Read using secondary index": "secondary indexes are not there",
    "Subscribe using secondary index": "secondary indexes are not there",
}
# Single samples, by what they contain.
LEFT_OUT_SAMPLES = {
    "class RecordedEvent:": "a listing of a class, which uses names that it does not import",
    "opentelemetry.exporter.otlp": "it needs a collector of traces, not a server of events",
}
if CA is None:
    LEFT_OUT_SAMPLES["ssl.get_server_certificate"] = "the server speaks no TLS in this run"

# Where a sample says by itself which server to speak to.
ITS_SERVER = re.compile(r"kurrentdb(\+discover)?://localhost:2113\?Tls=false|\('localhost', 2113\)")


def ours(match):
    text = match.group(0)
    host, port = ADDRESS.rsplit(":", 1)
    if text.startswith("("):
        return f"('{host}', {port})"
    return f"{text.split('://')[0]}://{SERVER}"


def samples(text):
    """The samples in order: (line, chapter and its parents, code)."""
    chapters, code, begun = {}, None, 0
    for number, line in enumerate(text.splitlines(), 1):
        if code is not None:
            if line.startswith("```"):
                yield begun, list(chapters.values()), "\n".join(code)
                code = None
            else:
                code.append(line)
        elif line.startswith("```python"):
            code, begun = [], number
        elif heading := re.match(r"(#+) (.*?)(<a .*)?$", line):
            level = len(heading[1])
            chapters = {k: v for k, v in chapters.items() if k < level}
            chapters[level] = heading[2]


def main():
    package = metadata("kurrentdbclient")
    print(f"the README of kurrentdbclient {package['Version']}")
    os.environ["KDB_URI"] = f"kurrentdb://{SERVER}"
    failed_threads = []
    threading.excepthook = lambda failed: failed_threads.append(failed)
    scope = {"__name__": "__main__"}
    ran = left_out = 0
    for line, chapters, code in samples(package.get_payload() or package["Description"]):
        reason = next((LEFT_OUT[c] for c in chapters if c in LEFT_OUT), None)
        reason = reason or next((r for part, r in LEFT_OUT_SAMPLES.items() if part in code), None)
        where = f"{chapters[-1]}, line {line}"
        if reason:
            left_out += 1
            print(f"  left out: {where}: {reason}")
            continue
        changed = ITS_SERVER.sub(ours, code)
        if changed != code:
            print(f"  its server replaced by {ADDRESS}: {where}")
        try:
            # Lines of a traceback are those of the README.
            exec(compile("\n" * line + changed, "README", "exec"), scope)
        except BaseException:
            traceback.print_exc()
            sys.exit(f"{where}: failed")
        if failed_threads:
            failed = failed_threads[0]
            traceback.print_exception(failed.exc_type, failed.exc_value, failed.exc_traceback)
            sys.exit(f"{where}: a thread failed")
        ran += 1
    if ran < 40:
        sys.exit(f"only {ran} samples ran: is this still the README that was meant?")
    print(f"  {ran} samples ran, {left_out} left out")


if __name__ == "__main__":
    main()
    # Threads of the samples' own exporters need not be waited for.
    sys.stdout.flush()
    os._exit(0)
