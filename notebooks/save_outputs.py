"""Runs the notebooks in full and saves their outputs, small.

    python notebooks/save_outputs.py [FILE...]

Needs the extra `notebooks`. Run it on a quiet machine; the tests say how large a notebook may be.
"""

import base64
import io
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

COLOURS = 32  # of a picture: lines and their edges need no more
HERE = Path(__file__).parent


def shrink(output: nbformat.NotebookNode) -> None:
    """Leaves of an output what a reader on the web needs."""
    data = output.get("data", {})
    data.pop("text/latex", None)
    if "image/png" in data:
        with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
            few = picture.convert("RGB").quantize(
                COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE
            )
        file = io.BytesIO()
        few.save(file, "png", optimize=True)
        data["image/png"] = base64.b64encode(file.getvalue()).decode()


def clean(notebook: nbformat.NotebookNode) -> None:
    """Small outputs, and nothing of the machine."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        for output in cell.get("outputs", []):
            shrink(output)


def main(paths: list[Path]) -> None:
    """Runs and saves them one after another."""
    for path in paths or sorted(HERE.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, resources={"metadata": {"path": str(path.parent)}}).execute()
        clean(notebook)
        nbformat.write(notebook, path)
        print(path.name, f"{path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
