"""What attempts aim at: a process with a temporary file and shared memory. Knows no attempt."""

import json
import os
import tempfile
import time

fd, path = tempfile.mkstemp(prefix="victim-")
shared = "/dev/shm/" + os.path.basename(path)
for each in (path, shared):
    with open(each, "w") as file:
        file.write("what another keeps here")
print("up " + json.dumps({"temporary": path, "shared": shared}), flush=True)
time.sleep(3600)
