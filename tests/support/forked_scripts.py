"""A `python` that runs the workflow's scripts as forks of one process that has imported what they import.

Each script is a process of its own, with its own folder, environment and streams, and ends as one; the seconds of its
imports are saved, of which a whole study has more than of its work. None of our modules is imported beforehand: each
script finds its checkout's own. Whatever else it is called with goes to the real interpreter.

Run as a program, this module is the process that is forked, and listens at the socket that it is given.
"""

import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

IMPORTED = [
    "accelerate", "bm25s", "datasets", "matplotlib.figure", "pandas", "peft", "PIL.Image", "scipy.optimize",
    "scipy.stats", "skimage.metrics", "skimage.transform", "sklearn.linear_model", "torch", "torch.utils.flop_counter",
    "transformers.models.qwen3_vl.modeling_qwen3_vl", "transformers.models.qwen3_vl.processing_qwen3_vl",
    "trl.trainer.sft_trainer",
]  # fmt: skip
FORKS = multiprocessing.get_context("fork")
# What stands for `python`: it passes its arguments, folder, environment and streams on, and ends as the script did.
CLIENT = """#!{python} -IS
import json, os, socket, sys
if not (sys.argv[1:] and sys.argv[1].startswith("scripts/")):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(9) or 1))
"""


@contextlib.contextmanager
def forked_scripts() -> Iterator[Path]:
    """Within the block there is a folder with such a `python`, to be put first on the path."""
    with tempfile.TemporaryDirectory() as folder:
        client, address = Path(folder, "python"), f"{folder}/socket"
        client.write_text(CLIENT.format(python=sys.executable, address=address))
        client.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(address)
            listening.listen()
            process = subprocess.Popen(
                [sys.executable, __file__, str(listening.fileno())], pass_fds=[listening.fileno()]
            )
            try:
                yield Path(folder)
            finally:
                process.kill()
                process.wait()


def serve(listening: socket.socket) -> None:
    """Answer whoever asks for a script, until this process is killed."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # what is there already is shared by all forks, as long as none of them looks through it
    while True:
        connection = listening.accept()[0]
        FORKS.Process(target=answer, args=(connection,)).start()
        connection.close()


def answer(connection: socket.socket) -> None:
    """Run the script that is asked for in a further fork, and say how it ended."""
    streams = socket.recv_fds(connection, 1, 3)[1]
    with connection.makefile() as asked:
        script = FORKS.Process(target=run, args=(*json.load(asked), streams))
    script.start()
    script.join()
    connection.sendall(str(script.exitcode).encode())


def run(arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> None:
    """Become the `python` that was called: its arguments, folder, environment and streams."""
    import torch  # where it has been imported already, and not where tests import this module

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))  # Snakemake's, which torch reads at its import alone
    sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent.resolve())
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
