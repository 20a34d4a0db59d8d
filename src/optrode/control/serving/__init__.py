"""An OpenAI-compatible server in which each request brings its own gates (extra `serve`).

`call.py` reads a request, `shelf.py` finds its gates, `prompting.py` its tokens; `worker.py` runs whatever waits in one
batch; `replies.py` writes the answer; `door.py` keeps out who is not meant; `app.py` is the HTTP side, `server.py` the
server.
"""

from importlib.util import find_spec

from optrode.errors import BadOption

for _package in ("starlette", "uvicorn"):
    if find_spec(_package) is None:
        raise BadOption("server", f"the package {_package} is not installed", next_step="pip install 'optrode[serve]'")
