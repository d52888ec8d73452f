"""Foundations that every other package uses. Nothing here knows about audio or networks.

| module | contents |
| --- | --- |
| `errors` | exceptions with messages for users, and helpers that word them |
| `names` | file names of ids, Unicode spellings, printing of names |
| `files` | atomic writing of files, checks of outputs |
| `folders` | atomic replacement of folders, one run at a time in a folder |
| `textfiles` | JSON, JSONL, CSV and lists, strictly read |
| `yamlfiles` | YAML as plain values, strictly read |
| `torchfiles` | `.pt` and `.safetensors` files as plain data, without unpickling |
| `config` | configurations: YAML with includes and overrides, objects built from checked values |
| `registry` | classes chosen by name in a configuration |
| `safe_building` | networks built from an untrusted configuration, within the size of their weights |
| `lazy_names` | names of a package that are imported when they are first used |
| `half_precision` | whether a device computes in bfloat16 |
| `processes` | functions on many items in several processes or on a Ray cluster |
| `search_path` | Python's search path without the current folder |
"""
