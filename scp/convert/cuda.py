"""The little of CUDA that proving on the device needs, from the driver alone: no toolkit, no compiler.

Memory, copies and one kernel, in the device's primary context, which nvImageCodec uses too. Everything runs
on the legacy default stream, so it comes after what the library put there (CUDA C++ Programming Guide,
"Default Stream").
"""

import ctypes
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scp.errors import CodecError

_THREADS: Final = 256
_MAX_BLOCKS: Final = 2048
_BLOCKING_SYNC: Final = 4
_PORTABLE: Final = 1
"""CU_MEMHOSTREGISTER_PORTABLE: pinned for every context."""
_QUICK_COPY: Final = 2**20
"""Bytes; takes about 0.1 ms."""

_KERNEL: Final = """
.visible .entry differ_{bits}(
    .param .u64 first, .param .u64 second, .param .u64 count, .param .u64 flag)
{{
    .reg .pred %done, %same;
    .reg .b32 %block, %blocks, %size, %thread, %one;
    .reg .b64 %a, %b, %n, %f, %i, %t, %step, %pa, %pb, %seen;
    .reg .{kind} %va, %vb;
    .reg .b64 %x, %y;
    ld.param.u64 %a, [first];
    ld.param.u64 %b, [second];
    ld.param.u64 %n, [count];
    ld.param.u64 %f, [flag];
    mov.u32 %block, %ctaid.x;
    mov.u32 %blocks, %nctaid.x;
    mov.u32 %size, %ntid.x;
    mov.u32 %thread, %tid.x;
    mul.wide.u32 %i, %block, %size;
    cvt.u64.u32 %t, %thread;
    add.u64 %i, %i, %t;
    mul.wide.u32 %step, %blocks, %size;
    mov.u64 %seen, 0;
next:
    setp.ge.u64 %done, %i, %n;
    @%done bra tell;
    mad.lo.u64 %pa, %i, {bytes}, %a;
    mad.lo.u64 %pb, %i, {bytes}, %b;
    ld.global.{kind} %va, [%pa];
    ld.global.{kind} %vb, [%pb];
    cvt.u64.{kind} %x, %va;
    cvt.u64.{kind} %y, %vb;
    xor.b64 %x, %x, %y;
    or.b64 %seen, %seen, %x;
    add.u64 %i, %i, %step;
    bra next;
tell:
    setp.eq.u64 %same, %seen, 0;
    @%same bra end;
    mov.u32 %one, 1;
    st.global.u32 [%f], %one;
end:
    ret;
}}
"""
"""Sets ``flag`` to 1 if any of ``count`` words of two areas differ; otherwise leaves it."""

_PTX: Final = (
    ".version 6.0\n.target sm_60\n.address_size 64\n"
    + _KERNEL.format(bits=64, kind="u64", bytes=8)
    + _KERNEL.format(bits=8, kind="u8", bytes=1)
)


class CudaError(CodecError):
    """A call of the driver failed. After most errors the context, and so the process, is of no more use.

    Parameters
    ----------
    call
        Name of the driver's function.
    code
        Its CUresult.
    """

    def __init__(self, call: str, code: int, name: str) -> None:
        super().__init__(f"{call}: {name or code}")
        self.code = code


def gpu_names() -> list[str]:
    """The GPUs of this machine in CUDA's order; empty without a driver. Not to be called before a fork."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    name = ctypes.create_string_buffer(256)
    names = []
    for ordinal in range(count.value):
        known = driver.cuDeviceGetName(name, len(name), ordinal) == 0
        names.append(name.value.decode(errors="replace") if known else "unknown")
    return names


class CudaMemory:
    """An area of device memory that grows on demand and is reused."""

    def __init__(self, device: "CudaDevice") -> None:
        self._device = device
        self.address = 0
        self.capacity = 0
        """Bytes."""

    def reserve(self, size: int) -> int:
        """Make room for ``size`` bytes; the address. What was in it is lost."""
        if size > self.capacity:
            self.free()
            address = ctypes.c_uint64()
            self._device.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
            self.address, self.capacity = address.value, size
        return self.address

    def free(self) -> None:
        address, self.address, self.capacity = self.address, 0, 0
        if address:
            self._device.call("cuMemFree_v2", ctypes.c_uint64(address))


class CudaDevice:
    """One GPU. Not to be used after a fork; calls may come from any thread, one at a time.

    Raises
    ------
    CudaError
        There is no such device, or the driver refuses it.
    OSError
        There is no driver.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        # Calls that return at once keep the interpreter's lock: to get it back costs more where others
        # are waiting for it.
        self._quick = ctypes.PyDLL("libcuda.so.1")
        self.ordinal = ordinal
        self._context = ctypes.c_void_p()
        self.call("cuInit", 0)
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), ordinal)
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, len(name), device)
        self.name = name.value.decode(errors="replace")
        # Otherwise a thread that waits for the device keeps a core of the host busy: for CT that is four
        # times the CPU time, and no frame more a second (H200). The driver may refuse where the context is
        # in use already.
        self._driver.cuDevicePrimaryCtxSetFlags_v2(device, _BLOCKING_SYNC)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self.use()
        self._module = ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(self._module), _PTX.encode())
        self._differ = {8: self._function(b"differ_64"), 1: self._function(b"differ_8")}
        self._flags = CudaMemory(self)

    def call(self, function: str, *arguments: Any, is_quick: bool = False) -> None:
        """Call the driver.

        Raises
        ------
        CudaError
        """
        driver = self._quick if is_quick else self._driver
        if code := getattr(driver, function)(*arguments):
            name = ctypes.c_char_p()
            self._driver.cuGetErrorName(code, ctypes.byref(name))
            raise CudaError(function, code, (name.value or b"").decode())

    def use(self) -> None:
        """Make this device's context the calling thread's."""
        self.call("cuCtxSetCurrent", self._context, is_quick=True)

    def memory(self) -> tuple[int, int]:
        """Free and total device memory in bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def pin(self, area: NDArray[np.generic]) -> None:
        """Have the device read the area without a copy of the driver's; it must be unpinned before it goes.

        Copies run at 44 GB/s then, otherwise at 6 (H100).
        """
        address, size = ctypes.c_void_p(area.ctypes.data), ctypes.c_size_t(area.nbytes)
        self.call("cuMemHostRegister_v2", address, size, _PORTABLE)

    def unpin(self, area: NDArray[np.generic]) -> None:
        self.call("cuMemHostUnregister", ctypes.c_void_p(area.ctypes.data))

    def upload(self, target: int, array: NDArray[np.generic]) -> None:
        """Copy a C-contiguous array to the device; returns when the array may be changed."""
        if not array.flags.c_contiguous:
            raise ValueError("only a C-contiguous array can be copied in one piece")
        self.call(
            "cuMemcpyHtoD_v2",
            ctypes.c_uint64(target),
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
            is_quick=array.nbytes <= _QUICK_COPY,
        )

    def download(self, array: NDArray[np.generic], source: int) -> None:
        """Fill a C-contiguous array from the device."""
        self.call(
            "cuMemcpyDtoH_v2",
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_uint64(source),
            ctypes.c_size_t(array.nbytes),
        )

    def fill(self, target: int, size: int, byte: int) -> None:
        """Set ``size`` bytes; may return before it is done."""
        value, count = ctypes.c_ubyte(byte), ctypes.c_size_t(size)
        self.call("cuMemsetD8_v2", ctypes.c_uint64(target), value, count, is_quick=True)

    def wait(self) -> None:
        """Return when everything that was asked of the context is done."""
        self.call("cuCtxSynchronize")

    def differing(self, pairs: list[tuple[int, int, int]]) -> list[bool]:
        """Which pairs of areas (first address, second address, bytes) differ."""
        if not pairs:
            return []
        flags = self._flags.reserve(4 * len(pairs))
        count = ctypes.c_size_t(len(pairs))
        self.call("cuMemsetD32_v2", ctypes.c_uint64(flags), ctypes.c_uint(0), count)
        for number, (first, second, size) in enumerate(pairs):
            whole = 0 if (first | second) % 8 else size - size % 8
            if whole:
                self._compare(8, first, second, whole, flags + 4 * number)
            if size > whole:
                self._compare(1, first + whole, second + whole, size - whole, flags + 4 * number)
        answer = np.empty(len(pairs), np.uint32)
        self.download(answer, flags)
        return [bool(flag) for flag in answer]

    def _compare(self, word: int, first: int, second: int, size: int, flag: int) -> None:
        words = size // word
        values = [ctypes.c_uint64(value) for value in (first, second, words, flag)]
        arguments = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        blocks = min(_MAX_BLOCKS, -(-words // _THREADS))
        shape = (blocks, 1, 1, _THREADS, 1, 1)
        function = self._differ[word]
        self.call("cuLaunchKernel", function, *shape, 0, None, arguments, None, is_quick=True)

    def _function(self, name: bytes) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), self._module, name)
        return function
