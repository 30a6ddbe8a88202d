"""Becomes process 1 of a container, as an engine would start it; for docker/verify.sh.

    unshare --mount --pid --ipc --uts --fork --kill-child python3 docker/enter.py ROOT TARGET=SOURCE[:rw]… -- COMMAND…

The root file system is ROOT, read-only, with /proc, a few devices and the given mounts. Then: user 65532, no
capabilities, no way to get any (`--read-only --cap-drop ALL --security-opt no-new-privileges --user 65532`).
"""

import ctypes
import os
import subprocess
import sys

USER = 65532
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 23, 24, 38


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


root, *rest = sys.argv[1:]
split = rest.index("--")
mounts, command = rest[:split], rest[split + 1:]

mount("--make-rprivate", "/")
mount("--bind", root, root)
# An engine makes these where the image does not have them.
for name in ("proc", "dev"):
    os.makedirs(f"{root}/{name}", exist_ok=True)
mount("-t", "proc", "proc", f"{root}/proc")
mount("-t", "tmpfs", "-o", "mode=755,size=64k", "tmpfs", f"{root}/dev")
for device in ("null", "zero", "urandom"):
    open(f"{root}/dev/{device}", "w").close()
    mount("--bind", f"/dev/{device}", f"{root}/dev/{device}")
for given in mounts:
    target, source = given.split("=", 1)
    writable = source.endswith(":rw")
    source = source.removesuffix(":rw")
    mount("--bind", source, root + target)
    if not writable:
        mount("-o", "remount,bind,ro", root + target)
mount("-o", "remount,bind,ro", root)

os.chroot(root)
os.chdir("/")
libc = ctypes.CDLL(None, use_errno=True)
capability = 0
while libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
    if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
        sys.exit(f"capability {capability} cannot be dropped: {os.strerror(ctypes.get_errno())}")
    capability += 1
os.setgroups([])
os.setresgid(USER, USER, USER)
os.setresuid(USER, USER, USER)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
    sys.exit("no_new_privs cannot be set")
environment = {"PATH": "/usr/local/bin", "SWITCHBACK_CONFIG": "/etc/switchback"}
os.execve(command[0], command, environment)
