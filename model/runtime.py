"""The surroundings of a training: precision, memory, and a quiet Lightning."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import platform
import signal
import threading
import warnings
from collections.abc import Iterator

import torch

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_DEFAULTS = {_M_TRIM_THRESHOLD: 128 * 1024, _M_MMAP_MAX: 65536}


def native_precision(accelerator: str = "auto") -> str:
    """Return Lightning's name of the fastest precision that this machine computes with.

    bfloat16 where the hardware has it (Ampere and later GPUs, AVX512-BF16 and AMX processors), else
    float32. float16 is never chosen: it needs loss scaling, and gains nothing without a GPU.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    if accelerator in ("auto", "cpu") and not _other_accelerator(accelerator) and _cpu_bf16():
        return "bf16-mixed"
    return "32-true"


def _other_accelerator(accelerator: str) -> bool:
    return accelerator == "auto" and torch.backends.mps.is_available()


def _cpu_bf16() -> bool:
    # Private, but there is no public question; absent in a later PyTorch means float32.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


@contextlib.contextmanager
def steady_memory() -> Iterator[None]:
    """Keep freed memory in the process while a training runs.

    Every step allocates the same arrays of up to 100 MB. glibc gives each back to the kernel and
    faults it in again, page by page: half of the time of a step on CPU (measured: 412 → 207 ms).
    Elsewhere than on Linux with glibc this does nothing.
    """
    mallopt = _mallopt()
    if mallopt is None:
        yield
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        for option, value in _DEFAULTS.items():
            mallopt(option, value)
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt() -> ctypes._NamedFuncPointer | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    return getattr(ctypes.CDLL(None), "mallopt", None)


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice, and give Ctrl-C back its meaning.

    Lightning answers Ctrl-C with `sys.exit` and leaves the signal ignored, which would end a
    notebook's kernel or a command without a word; here it becomes a KeyboardInterrupt again.
    """
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main else None
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if in_main:
            signal.signal(signal.SIGINT, handler)
