"""For schemathesis: the body of a tus upload is bytes like any other. Loaded by its command line."""

import schemathesis

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
