"""A small CUDA program that needs nothing but the driver: Python's ctypes on libcuda and a kernel in PTX.

It stands for an unmodified program: it knows nothing of shares. One JSON object on standard output.

    cuda_program.py info               {"total_bytes", "free_bytes", "multiprocessors"}
    cuda_program.py fill BYTES         allocate so much in pieces of 64 MiB: {"bytes", "error"} (error 2: out
    of memory) cuda_program.py hold BYTES FILE    allocate so much, write to it again and again until FILE
    exists; FILE.<pid> is made
                                       after the first time: {"bytes", "error", "rounds"}
    cuda_program.py work SECONDS AT    from the time AT (seconds since 1970; 0: now) on multiply-add in
    registers:
                                       {"launches", "seconds", "flop_per_s"}
    cuda_program.py fault              store to an address that is not ours: {"error"}

Exit status: 0 also when an allocation was refused; 3 when there is no CUDA device.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time

_PIECE_BYTES = 64 << 20
_ROUNDS, _FMA_PER_ROUND = 4096, 8
_BLOCKS_PER_MULTIPROCESSOR, _THREADS = 8, 256
_MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
_FMA = "    fma.rn.f32 %f1, %f1, %f2, %f3;\n"

#: spin(out: address of one float for each thread, rounds): 8 multiply-adds in each round, the result kept.
PTX = (
    """.version 6.3
.target sm_70
.address_size 64

.visible .entry spin(.param .u64 out, .param .u32 rounds)
{
    .reg .pred %p<2>;
    .reg .f32 %f<4>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<5>;

    ld.param.u64 %rd1, [out];
    ld.param.u32 %r1, [rounds];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    cvt.rn.f32.u32 %f1, %r5;
    mov.f32 %f2, 0f3F7FFF58;
    mov.f32 %f3, 0f3A83126F;
AGAIN:
"""
    + _FMA * _FMA_PER_ROUND
    + """    sub.u32 %r1, %r1, 1;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra AGAIN;
    cvta.to.global.u64 %rd2, %rd1;
    mul.wide.u32 %rd3, %r5, 4;
    add.s64 %rd4, %rd2, %rd3;
    st.global.f32 [%rd4], %f1;
    ret;
}
"""
)


class CudaError(Exception):
    """A driver call failed: its name and CUresult."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} gave {code}")
        self.code = code


class Device:
    """The first visible device, through its primary context, as the runtime uses it. Raises CudaError or
    OSError."""

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)
        self._device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(self._device), 0)
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name: str, *arguments: object) -> None:
        code = getattr(self._cuda, name)(*arguments)
        if code:
            raise CudaError(name, code)

    def info(self) -> dict[str, int]:
        free, total, count = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_int()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        self.call("cuDeviceGetAttribute", ctypes.byref(count), _MULTIPROCESSORS, self._device)
        return {"total_bytes": total.value, "free_bytes": free.value, "multiprocessors": count.value}

    def allocate(self, size: int) -> ctypes.c_uint64:
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address

    def fill(self, size: int) -> tuple[list[ctypes.c_uint64], int]:
        """Pieces that were allocated, and the error that ended it (0: none)."""
        pieces: list[ctypes.c_uint64] = []
        try:
            while len(pieces) * _PIECE_BYTES < size:
                pieces.append(self.allocate(_PIECE_BYTES))
        except CudaError as error:
            return pieces, error.code
        return pieces, 0

    def write(self, address: ctypes.c_uint64) -> None:
        self.call("cuMemsetD32_v2", address, ctypes.c_uint(7), ctypes.c_size_t(_PIECE_BYTES // 4))
        self.call("cuCtxSynchronize")

    def kernel(self) -> ctypes.c_void_p:
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(PTX.encode()))
        self.call("cuModuleGetFunction", ctypes.byref(function), module, ctypes.c_char_p(b"spin"))
        return function

    def launch(self, function: ctypes.c_void_p, blocks: int, out: ctypes.c_uint64) -> None:
        rounds = ctypes.c_uint(_ROUNDS)
        places = (ctypes.c_void_p * 2)(ctypes.addressof(out), ctypes.addressof(rounds))
        shape = [ctypes.c_uint(n) for n in (blocks, 1, 1, _THREADS, 1, 1, 0)]
        self.call("cuLaunchKernel", function, *shape, None, places, None)
        self.call("cuCtxSynchronize")


def _work(device: Device, seconds: float, at_s: float) -> dict[str, float]:
    """As many blocks as fill the whole card, whatever share of it we have."""
    blocks = device.info()["multiprocessors"] * _BLOCKS_PER_MULTIPROCESSOR
    out = device.allocate(blocks * _THREADS * 4)
    function = device.kernel()
    device.launch(function, blocks, out)  # compiled and warm before the clock runs
    time.sleep(max(0.0, at_s - time.time()))
    launches, begun_s = 0, time.monotonic()
    while (spent_s := time.monotonic() - begun_s) < seconds:
        device.launch(function, blocks, out)
        launches += 1
    flop = 2.0 * launches * blocks * _THREADS * _ROUNDS * _FMA_PER_ROUND
    return {"launches": launches, "seconds": spent_s, "flop_per_s": flop / spent_s}


def _hold(device: Device, size: int, end: str) -> dict[str, int]:
    pieces, error = device.fill(size)
    rounds = 0
    while pieces and not os.path.exists(end):  # noqa: PTH110  a program of its own, started without packages
        device.write(pieces[rounds % len(pieces)])
        rounds += 1
        if rounds == 1:
            with open(f"{end}.{os.getpid()}", "w"):
                pass
    return {"bytes": len(pieces) * _PIECE_BYTES, "error": error, "rounds": rounds}


def main(words: list[str]) -> int:
    try:
        device = Device()
    except (OSError, CudaError) as error:
        sys.stderr.write(f"no CUDA device: {error}\n")
        return 3
    answer: dict[str, float] | dict[str, int]
    if words[0] == "info":
        answer = device.info()
    elif words[0] == "fill":
        pieces, code = device.fill(int(words[1]))
        answer = {"bytes": len(pieces) * _PIECE_BYTES, "error": code}
    elif words[0] == "hold":
        answer = _hold(device, int(words[1]), words[2])
    elif words[0] == "work":
        answer = _work(device, float(words[1]), float(words[2]))
    else:
        try:
            device.launch(device.kernel(), 1, ctypes.c_uint64(64))
            answer = {"error": 0}
        except CudaError as error:
            answer = {"error": error.code}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
