/**
 * Load the files of the page that are large: the exported model and the WebAssembly of onnxruntime-web.
 *
 * The build compresses them (`NAME.gz`), so that the download is small on any static host, whatever it compresses itself.
 * They are stored in the browser's cache, from which `service_worker.js` and later visits take them.
 */

const FORMAT = "wesep-export";
const FORMAT_VERSION = 1;

/** A file could not be loaded. */
export class LoadError extends Error {}

export class ModelFiles {
  #base;
  #cacheName;
  #sizes;
  #onProgress;
  #loaded = new Map(); // bytes until now of each file

  /**
   * @param {URL} base - of the page's files.
   * @param {string} cacheName - of the browser's cache.
   * @param {Object<string, number>} sizes - bytes of each large file, as they are transferred.
   * @param {(done: number, total: number) => void} onProgress - bytes of all files that were asked for.
   */
  constructor(base, cacheName, sizes, onProgress) {
    this.#base = base;
    this.#cacheName = cacheName;
    this.#sizes = sizes;
    this.#onProgress = onProgress;
  }

  /** Return the description of the model. */
  async describe() {
    const bytes = await this.#read("model/wesep.json");
    const about = JSON.parse(new TextDecoder().decode(bytes));
    if (about.format !== FORMAT || about.format_version !== FORMAT_VERSION || about.type !== "onnx") {
      throw new LoadError(
        `model/wesep.json: has format ${about.format} ${about.format_version} (${about.type}); ` +
          `${FORMAT} ${FORMAT_VERSION} (onnx) is needed: build the page again.`,
      );
    }
    return about;
  }

  /** Return the content of a graph of the model, compared with its checksum. */
  async graph(about, name) {
    const { file, sha256 } = about.graphs[name];
    const content = await this.#read(`model/${file}.gz`);
    if (crypto.subtle) {
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
      if ([...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") !== sha256) {
        throw new LoadError(`model/${file}: is not the file that belongs to this page; reload the page.`);
      }
    }
    return content;
  }

  /** Return the WebAssembly of onnxruntime-web. */
  async webAssembly() {
    return this.#read("ort/ort-wasm-simd-threaded.wasm.gz");
  }

  async #read(name) {
    const url = new URL(name, this.#base);
    const cache = await globalThis.caches?.open(this.#cacheName);
    const stored = await cache?.match(url);
    const response = stored ?? (await fetched(url, name));
    const parts = [];
    let count = 0;
    const reader = response.body.getReader();
    try {
      for (let read = await reader.read(); !read.done; read = await reader.read()) {
        parts.push(read.value);
        count += read.value.length;
        this.#report(name, count);
      }
    } catch {
      throw new LoadError(`${name}: the connection failed; check it and reload the page.`);
    }
    const content = new Blob(parts);
    if (!stored) {
      await store(cache, url, content);
    }
    const magic = new Uint8Array(await content.slice(0, 2).arrayBuffer());
    // Some hosts declare the compression, so that the browser has undone it already.
    const isCompressed = magic[0] === 0x1f && magic[1] === 0x8b;
    const stream = isCompressed ? content.stream().pipeThrough(new DecompressionStream("gzip")) : content.stream();
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  #report(name, count) {
    if (name in this.#sizes) {
      this.#loaded.set(name, Math.min(count, this.#sizes[name]));
    }
    const done = [...this.#loaded.values()].reduce((sum, bytes) => sum + bytes, 0);
    this.#onProgress(done, Object.values(this.#sizes).reduce((sum, bytes) => sum + bytes, 0));
  }
}

async function fetched(url, name) {
  let response;
  try {
    response = await fetch(url);
  } catch {
    throw new LoadError(`${name}: the connection failed; check it and reload the page.`);
  }
  if (!response.ok) {
    throw new LoadError(`${name}: is missing on the server (HTTP ${response.status}); reload the page later.`);
  }
  return response;
}

/** Store a file for later visits; a browser whose storage is full or forbidden works without. */
async function store(cache, url, content) {
  try {
    await cache?.put(url, new Response(content));
  } catch (error) {
    console.warn(`${url}: was not stored for use without a connection (${error.message})`);
  }
}
