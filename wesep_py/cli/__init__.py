"""The commands of `wesep`. No other package imports this one.

| module | commands |
| --- | --- |
| `main` | finds the command, runs it, turns errors into one line and an exit status |
| `extract`, `enroll` | `extract`, `enroll` |
| `file_tasks` | runs the extractions of `extract`, in processes |
| `live` | `stream`, `live` |
| `targets`, `outputs` | parse `--enroll`, and plan the files to write |
| `prepare`, `pack` | `prepare`; `shard`, `lmdb` |
| `simulate` | `simulate`, `render` |
| `train` | `train` |
| `convert` | `models`, `average`, `import-checkpoint` |
| `evaluate` | `evaluate`, `score` |
| `analyse` | `compare`, `report`, `calibrate`, `verify` |
| `demo`, `doctor` | `demo`, `doctor` |
| `options` | options, progress bars and endings that commands share |
"""

from wesep_py.common.search_path import leave_out_current_folder

leave_out_current_folder()
