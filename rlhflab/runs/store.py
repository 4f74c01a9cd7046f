"""A run is a folder: its settings, where it ran, every record, and the last checkpoint.

    config.json              keyword arguments that rebuild the algorithm
    environment.json         Python, package versions, machine, the data's fingerprint
    backdrop.json            the exact frontier, where the world has one
    pairs.jsonl              texts of the preference pairs, once per pair
    records.jsonl            one record per line; its pairs hold ids and numbers only
    checkpoint.safetensors   the algorithm's state, the rest of it as JSON in the file's metadata
    status.json              how the run ended

A crash at any instant loses at most the steps since the last checkpoint: complete files are written under another name
and renamed, appended lines are flushed, and a torn last line is dropped. Left out: locks (one process writes a run at a
time) and a history of checkpoints.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rlhflab.boundary import Fault, given
from rlhflab.core.record import Backdrop, Record
from rlhflab.files import written_beside
from rlhflab.plots.paper import save_figure
from rlhflab.runs.environment import environment_now
from rlhflab.runs.fingerprint import fingerprint as fingerprint_of_data
from rlhflab.runs.frame import frame_of
from rlhflab.runs.json_files import drop_torn_line, line_of, read_json, read_lines, write_json, writing
from rlhflab.runs.scene import scenes

if TYPE_CHECKING:
    from rlhflab.core.algorithm import Algorithm

TEXTS = ("prompts", "chosen", "rejected", "flipped")  # the columns of Pairs that pairs.jsonl keeps


def default_run_folder(algorithm: str, parent: str | Path = "runs") -> Path:
    """Create and return a new empty folder such as `runs/dpo-20261123-041530`; never an existing one.

    Args:
        algorithm: the first part of the name.
        parent: the folder to make it in; created if missing.
    """
    stem = Path(parent) / f"{algorithm}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = stem, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = stem.with_name(f"{stem.name}-{number}")


class Run:
    """One run on disk; made by `Run.create` or `Run.open`.

    Attributes:
        folder: where it lives.
        config: keyword arguments that rebuild the algorithm (JSON values).
        environment: Python, package versions and machine at creation.
        backdrop: the exact frontier of an enumerable world, else None.
        seconds_to_save: time taken by the last checkpoint; 0 before the first one.
    """

    seconds_to_save = 0.0

    def __init__(
        self, folder: Path, config: dict[str, Any], environment: dict[str, Any], backdrop: Backdrop | None
    ) -> None:
        self.folder = folder
        self.config = config
        self.environment = environment
        self.backdrop = backdrop
        self._records: IO[bytes] | None = None
        self._pairs: IO[bytes] | None = None
        self._written: dict[int, int] = {}  # pair id → hash of its texts, for those in pairs.jsonl

    @classmethod
    def create(
        cls,
        folder: str | Path,
        config: Mapping[str, Any],
        backdrop: Backdrop | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> Run:
        """Start a run in a new or empty folder.

        Args:
            folder: created if missing, parents too.
            config: keyword arguments that rebuild the algorithm; JSON values.
            backdrop: the exact frontier, if the world has one.
            notes: on model and data, one line each, by name; kept in `environment`.

        Raises:
            ValueError: the folder is not empty, or `config` is not JSON.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file; a run needs a new or empty folder")
        if folder.is_dir() and any(folder.iterdir()):
            what = "a run" if (folder / "config.json").exists() else "other files"
            raise ValueError(f"{folder} holds {what}; a run needs a new or empty folder")
        try:
            json.dumps(dict(config))
        except TypeError as error:
            raise ValueError(f"config must hold JSON values only: {error}") from None
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        environment = environment_now() | ({"notes": dict(notes)} if notes else {})
        if (data := fingerprint_of_data(config)) is not None:
            environment["data"] = data
        if backdrop is not None:
            write_json(folder / "backdrop.json", backdrop.to_dict())
        write_json(folder / "environment.json", environment)
        write_json(folder / "config.json", dict(config))  # last: it marks the folder as a complete run
        return cls(folder, dict(config), environment, backdrop)

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open an existing run.

        Raises:
            ValueError: the folder is not a run, or one of its JSON files cannot be read.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder} is not a run: it has no config.json")
        config, environment, backdrop = (
            read_json(folder / f"{name}.json") for name in ("config", "environment", "backdrop")
        )
        with given(f"{folder / 'backdrop.json'} is damaged"):
            truth = None if backdrop is None else Backdrop.from_dict(backdrop)
        return cls(folder, config, environment or {}, truth)

    @property
    def checkpoint(self) -> Path:
        """The file of the last checkpoint."""
        return self.folder / "checkpoint.safetensors"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a state to continue from."""
        return self.checkpoint.is_file()

    @property
    def status(self) -> dict[str, Any]:
        """How the run ended, as written by `finish`; empty while unknown."""
        return read_json(self.folder / "status.json") or {}

    def finish(self, status: str, **details: Any) -> None:
        """Write how the run ended: "finished", "stopped", "diverged", …, with JSON details, and close its files."""
        self.close()
        write_json(
            self.folder / "status.json", {"status": status, "time": time.strftime("%FT%T%z"), **details}
        )

    def close(self) -> None:
        """Close the appended files; `append` reopens them."""
        for handle in (self._records, self._pairs):
            if handle is not None:
                with suppress(OSError):  # a line that could not be written; `append` has reported it
                    handle.close()
        self._records = self._pairs = None

    # Records

    def append(self, record: Record) -> None:
        """Add a record; when this returns, the operating system has it.

        Raises:
            ValueError: a pair's id was already used with other texts.
            Fault: cannot write, such as on a full disk; the next call starts on a clean line.
        """
        try:
            with writing(self.folder / "records.jsonl"):
                self._append(record.to_dict())
        except Fault:
            self.close()
            raise

    def _append(self, data: dict[str, Any]) -> None:
        if self._records is None or self._pairs is None:
            self._open_for_appending()
        assert self._records is not None and self._pairs is not None
        if "pairs" in data:
            self._write_new_pairs(data["pairs"], self._pairs)
            for name in TEXTS:
                del data["pairs"][name]
        self._records.write(line_of(data))
        self._records.flush()

    def records(self) -> Iterator[Record]:
        """Yield the records in order, equal to those appended; a torn last line is skipped.

        Raises:
            ValueError: a damaged line; names its file and number.
        """
        lines = list(read_lines(self.folder / "records.jsonl"))  # before the pairs, which are written first
        texts = {data["id"]: data for _, data in read_lines(self.folder / "pairs.jsonl")}
        for number, data in lines:
            try:
                pairs = data.get("pairs")
                if pairs is not None:
                    known = [texts[pair] for pair in pairs["ids"]]
                    pairs.update({name: [text[name] for text in known] for name in TEXTS})
                record = Record.from_dict(data)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise ValueError(
                    f"{self.folder / 'records.jsonl'}:{number}: not a record ({type(error).__name__}: {error})"
                ) from None
            yield record

    def frame(self) -> Any:
        """Return the numbers of all records as a pandas DataFrame, one row per step; see `runs.frame`.

        Raises:
            ValueError: pandas is not installed, or a line is damaged.
        """
        return frame_of(self.records())

    def save_figure(self, path: str | Path, panels: Sequence[str] = (), title: str = "") -> Path:
        """Write the run's plots as an SVG or a PDF for a paper, by the suffix of `path`; see `plots.paper`.

        Args:
            path: the file to create or replace; PDF needs matplotlib.
            panels: ids of those to draw, as in `board.panels`; () for all of the algorithm's.
            title: heading.

        Raises:
            ValueError: another suffix, no such panel, nothing to draw, or no matplotlib; in one line.
        """
        main, rest = scenes(self.records(), self.backdrop, self.config.get("algorithm", ""))
        everything = panels or not main.shown()
        scene = replace(main, panels=(*main.panels, *rest.panels)) if everything else main
        return save_figure(scene, path, panels, title)

    def _write_new_pairs(self, pairs: Mapping[str, Any], file: IO[bytes]) -> None:
        new: dict[int, int] = {}
        lines = []
        for pair, *texts in zip(pairs["ids"], *(pairs[name] for name in TEXTS), strict=True):
            fingerprint = hash(tuple(texts))
            known = self._written.get(pair, new.get(pair))
            if known is None:
                new[pair] = fingerprint
                lines.append(line_of({"id": pair, **dict(zip(TEXTS, texts, strict=True))}))
            elif known != fingerprint:
                raise ValueError(
                    f"pair {pair} was already recorded with other texts; a pair's id must be unique"
                )
        if lines:
            file.write(b"".join(lines))
            file.flush()
            self._written.update(new)

    def _open_for_appending(self) -> None:
        records, pairs = self.folder / "records.jsonl", self.folder / "pairs.jsonl"
        for path in (records, pairs):
            drop_torn_line(path)
        self._written = {
            data["id"]: hash(tuple(data[name] for name in TEXTS)) for _, data in read_lines(pairs)
        }
        self._records, self._pairs = records.open("ab"), pairs.open("ab")

    # Checkpoints

    def save_checkpoint(self, algorithm: Algorithm) -> None:
        """Save the algorithm's state, atomically replacing the previous checkpoint; records are synced to disk before.

        Raises:
            ValueError: a value in `state_dict()` that is neither a tensor nor JSON.
            Fault: cannot write, such as on a full disk; the previous checkpoint stays.
        """
        from rlhflab.runs.checkpoint import write_checkpoint  # torch takes seconds, and a report needs none

        started = time.perf_counter()
        state = algorithm.state_dict()
        with writing(self.checkpoint):
            for handle in (self._pairs, self._records):
                if handle is not None:
                    os.fsync(handle.fileno())
            write_checkpoint(self.checkpoint, state, algorithm.step, self.config)
        self.seconds_to_save = time.perf_counter() - started

    def load_checkpoint(self, algorithm: Algorithm, drop: bool = True) -> int:
        """Restore the algorithm from its last checkpoint and drop the records made after it.

        A run without a checkpoint starts over: the algorithm is left unchanged and all records are dropped.

        Args:
            algorithm: built from the run's settings.
            drop: whether records are dropped; of several processes that continue a run only one does it.

        Returns:
            The checkpoint's step; 0 if there is none.

        Raises:
            ValueError: the checkpoint cannot be read, or belongs to a different algorithm.
        """
        from rlhflab.runs.checkpoint import read_checkpoint

        step = 0
        if self.has_checkpoint:
            step, state = read_checkpoint(self.checkpoint)
            with given(f"{self.checkpoint} does not fit the algorithm that the run's settings build"):
                algorithm.load_state_dict(state)
        if drop:
            self._drop_records_after(step)
            (self.folder / "status.json").unlink(missing_ok=True)
        return step

    def _drop_records_after(self, step: int) -> None:
        self.close()
        records, pairs = self.folder / "records.jsonl", self.folder / "pairs.jsonl"
        kept = [data for _, data in read_lines(records) if data.get("step", 0) <= step]
        used = {pair for data in kept for pair in data.get("pairs", {}).get("ids", ())}
        texts = [data for _, data in read_lines(pairs) if data["id"] in used]
        for path, lines in (
            (records, kept),
            (pairs, texts),
        ):  # records first, so that none ever lacks its texts
            if path.exists():
                with written_beside(path) as beside:
                    beside.write_bytes(b"".join(map(line_of, lines)))
