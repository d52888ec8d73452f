/**
 * Keep the page usable without a connection.
 *
 * The small files are stored when this worker is installed, the large ones by `model_files.js` when they are loaded. A new
 * version of the page takes over when no tab shows the old one, so that the files of two versions never meet.
 */

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE_NAME).then((cache) => cache.addAll(PAGE_FILES)));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(removeOthers().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "GET" && new URL(request.url).origin === self.location.origin) {
    event.respondWith(answer(request));
  }
});

/** Remove what earlier versions of this page have stored. */
async function removeOthers() {
  const names = (await caches.keys()).filter((name) => name.startsWith("wesep-") && name !== CACHE_NAME);
  await Promise.all(names.map((name) => caches.delete(name)));
}

async function answer(request) {
  const cache = await caches.open(CACHE_NAME);
  const stored = await cache.match(request, { ignoreSearch: request.mode === "navigate" });
  return stored ?? fetch(request);
}
