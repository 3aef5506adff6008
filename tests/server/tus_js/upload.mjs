// Uploads one file by tus-js-client, from a program on Node.js, over a network that cuts. Prints what became of it.
import { createReadStream, readFileSync, statSync } from "node:fs";
import { Upload } from "tus-js-client";

const { endpoint, uploadUrl, token, file, path, chunkSize, stopAt, deferred } = JSON.parse(process.argv[2]);
let etag = null;

// Of a stream whose length nobody knows tus-js-client 4.3.1 waits for a last chunk that is short for ever.
const upload = new Upload(deferred ? readFileSync(file) : createReadStream(file), {
  endpoint,
  uploadUrl,
  headers: { Authorization: `Bearer ${token}` },
  metadata: { path, filename: "as it was called there", mtime: "1600000000123" },
  retryDelays: Array(200).fill(20),
  ...(chunkSize ? { chunkSize } : {}),
  ...(deferred ? { uploadLengthDeferred: true } : { uploadSize: statSync(file).size }),
  onProgress: (sent) => {
    if (stopAt && sent >= stopAt) end({ stopped: sent });
  },
  onAfterResponse: (_request, response) => {
    etag = response.getHeader("ETag") ?? etag;
  },
  onError: (error) => {
    end({ error: String(error) });
  },
  onSuccess: () => end({ etag }),
});

function end(result) {
  console.log(JSON.stringify({ ...result, url: upload.url }));
  process.exit(0);
}

upload.start();
