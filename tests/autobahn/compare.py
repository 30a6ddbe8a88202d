"""Prints how two runs of the Autobahn cases ended, and every case that ended differently. Exit code 1 if one did."""

import collections
import json
import pathlib
import sys


def read(folder):
    (cases,) = json.loads(pathlib.Path(folder, "index.json").read_text()).values()
    return {name: (case["behavior"], case["behaviorClose"], case["remoteCloseCode"]) for name, case in cases.items()}


direct, proxied = map(read, sys.argv[1:3])
for name, cases in (("direct", direct), ("proxied", proxied)):
    count = collections.Counter(behavior for behavior, _, _ in cases.values())
    print(f"{name}: {len(cases)} cases:", ", ".join(f"{number} {what}" for what, number in sorted(count.items())))
differ = sorted(name for name in direct.keys() | proxied.keys() if direct.get(name) != proxied.get(name))
for name in differ:
    print(f"{name}: direct {direct.get(name)}, proxied {proxied.get(name)}")
print("no case differs" if not differ else f"{len(differ)} differ")
sys.exit(bool(differ))
