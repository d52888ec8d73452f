/**
 * Build the page: `node build.js [--model FOLDER] [--out FOLDER]`.
 *
 * FOLDER is an ONNX model, `wesep export MODEL --format onnx --fp16 --stream -o FOLDER`; by default `../build/web_model`, which
 * `make web` exports. Large files are compressed here, so that the download is small on any host.
 */

import { createHash } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const { values: options } = parseArgs({
  options: {
    model: { type: "string", default: path.join(here, "../build/web_model") },
    out: { type: "string", default: path.join(here, "dist") },
  },
});
const out = path.resolve(options.out);
const runtime = path.join(here, "node_modules/onnxruntime-web/dist");

await rm(out, { recursive: true, force: true });
for (const folder of ["model", "ort", "example"]) {
  await mkdir(path.join(out, folder), { recursive: true });
}

// Large files: the graphs, and the WebAssembly.
const about = await readModel();
const large = {};
for (const { file } of Object.values(about.graphs)) {
  await compress(path.join(options.model, file), `model/${file}.gz`);
}
await compress(path.join(runtime, "ort-wasm-simd-threaded.wasm"), "ort/ort-wasm-simd-threaded.wasm.gz");

// Small files.
const copies = {
  [path.join(options.model, "wesep.json")]: "model/wesep.json",
  [path.join(runtime, "ort-wasm-simd-threaded.mjs")]: "ort/ort-wasm-simd-threaded.mjs",
  [path.join(here, "../docs/assets/mixture.ogg")]: "example/mixture.ogg",
  [path.join(here, "../docs/assets/enrollment.ogg")]: "example/enrollment.ogg",
  [path.join(here, "src/index.html")]: "index.html",
  [path.join(here, "src/icon.svg")]: "icon.svg",
  [path.join(here, "src/worklets.js")]: "worklets.js",
  [path.join(here, "space.md")]: "README.md", // the header of a Space on the Hugging Face Hub
  [path.join(here, "NOTICE.txt")]: "NOTICE.txt",
};
for (const [from, to] of Object.entries(copies)) {
  await copyFile(from, path.join(out, to));
}
const pageFiles = ["./", "index.html", "page.js", "worker.js", "style.css", "worklets.js", "icon.svg"];
pageFiles.push("model/wesep.json", "ort/ort-wasm-simd-threaded.mjs", "example/mixture.ogg", "example/enrollment.ogg");

// Each version has a cache of its own: its name is a hash of everything that the build reads.
const cacheName = `wesep-${await hashOf(out, path.join(here, "src"), path.join(here, "../wesep_py/export/web"))}`;
const loadedFirst = Object.fromEntries(Object.entries(large).filter(([name]) => !name.includes("stream")));
await build({
  entryPoints: {
    page: path.join(here, "src/page/main.js"),
    worker: path.join(here, "src/worker.js"),
    style: path.join(here, "src/style.css"),
    service_worker: path.join(here, "src/service_worker.js"),
  },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  conditions: ["onnxruntime-web-use-extern-wasm"],
  nodePaths: [path.join(here, "node_modules")],
  logLevel: "warning",
  define: {
    CACHE_NAME: JSON.stringify(cacheName),
    LARGE_FILES: JSON.stringify(loadedFirst),
    PAGE_FILES: JSON.stringify(pageFiles),
  },
});

async function readModel() {
  try {
    return JSON.parse(await readFile(path.join(options.model, "wesep.json"), "utf8"));
  } catch (error) {
    console.error(`${options.model}: holds no exported model (${error.message}); run \`make web\`, or give --model FOLDER`);
    process.exit(2);
  }
}

async function compress(file, name) {
  const content = gzipSync(await readFile(file), { level: 9 });
  await writeFile(path.join(out, name), content);
  large[name] = content.length;
}

async function hashOf(...folders) {
  const hash = createHash("sha256");
  for (const folder of folders) {
    for (const name of (await readdir(folder, { recursive: true })).sort()) {
      const content = await readFile(path.join(folder, name)).catch((error) => {
        if (error.code === "EISDIR") {
          return "";
        }
        throw error;
      });
      hash.update(name).update(content);
    }
  }
  return hash.digest("hex").slice(0, 12);
}
