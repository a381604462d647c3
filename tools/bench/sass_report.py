"""What the compiler made of the CUDA kernels, and what that allows: run by sass_report.sh, which describes the output.

All bounds are of the main loop: the innermost loop with tensor-core instructions, and where there are several of one kind (with and without masks)
the shortest. One iteration of a block of W warps takes at least so many cycles of a multiprocessor, which has four schedulers:
  tensor  HMMA.16816 x c x W / 4     c = cycles a scheduler's tensor core needs: 4096 FLOP / (its FLOP a cycle)
  issue   all instructions x W / 4   one a cycle
  fp32    FADD, FMUL, FFMA, IMAD x {sm_80: 2, sm_90: 1, but IMAD alone 2} x W / 4
  alu     integer, logic, compare, select, minimum, conversion x 2 x W / 4
  mufu    exponentials, reciprocals x 8 x W / 4
  shared  wavefronts x W             128 bytes a cycle; ldmatrix.x4 and a copy of 16 bytes a lane take 4, a shuffle 1, loads as if no two lanes shared
Loads and stores of shared memory that lanes share count too much, and so do the laws of "other", which are branches of one loop; everything else is a
lower bound of the time.
"""
import argparse
import re
import subprocess
import sys
from collections import Counter, namedtuple

# FLOP a cycle and scheduler and memory bandwidth from the makers' data sheets (dense bf16, boost clock): A100 SXM 312 TFLOP/s, H200 SXM 989 TFLOP/s.
Gpu = namedtuple("Gpu", "name arch sms clock_hz hmma_cycles fp32_cycles bytes_per_s flops")
GPUS = {
    "sm_80": Gpu("A100", "sm_80", 108, 1.41e9, 8, 2, 2.039e12, 312e12),
    "sm_90": Gpu("H200", "sm_90", 132, 1.83e9, 4, 1, 4.8e12, 989e12),
}
SHARED_PER_SM = {"sm_80": 164 * 1024, "sm_90": 228 * 1024, "sm_100": 228 * 1024}
THREADS_PER_SM, BLOCKS_PER_SM, REGISTERS_PER_SM, RESERVED_SHARED = 2048, 32, 65536, 1024
SHAPES = [(8, 8, 257, 64), (2, 8, 1025, 64), (1, 16, 4097, 64), (128, 3, 51, 64)]  # B, H, L, D

FP32 = {"FADD", "FMUL", "FFMA", "FADD32I", "FMUL32I", "FFMA32I"}
OTHER_PIPES = {"IMAD", "HMMA", "MUFU", "LDSM", "LDS", "STS", "LDGSTS", "LDG", "STG", "SHFL", "BRA", "BSSY", "BSYNC", "EXIT", "NOP", "BAR", "BREAK",
               "LDGDEPBAR", "DEPBAR", "CALL", "RET", "WARPSYNC", "LDC", "LDCU", "S2R", "CS2R", "LDL", "STL", "YIELD", "ERRBAR", "S2UR", "R2UR"}

Loop = namedtuple("Loop", "begin end counts instructions wavefronts")
Function = namedtuple("Function", "arch name registers stack local instructions loops")


def run(command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def wavefronts(text):
    opcode = text.split()[0]
    if opcode.startswith("LDSM"):
        return 4 if opcode.endswith(".4") else 2 if opcode.endswith(".2") else 1
    if opcode.startswith(("LDS", "STS")) or opcode.startswith("LDGSTS"):
        return 4 if ".128" in opcode else 2 if ".64" in opcode else 1
    return 1 if opcode.startswith("SHFL") else 0


def find_loops(code):
    """Innermost loops that hold tensor-core instructions. code: [(address, instruction without its predicate)]."""
    regions = set()
    for address, text in code:
        target = re.match(r"BRA(?:\.U)?(?: \S+,)? `?\(?(0x[0-9a-f]+)", text)
        if target and int(target.group(1), 16) <= address:
            regions.add((int(target.group(1), 16), address))
    with_tensor = []
    for begin, end in regions:
        inside = [text for address, text in code if begin <= address <= end]
        if any(text.startswith("HMMA") for text in inside):
            with_tensor.append((begin, end, inside))
    loops = []
    for begin, end, inside in with_tensor:
        if any(other is not inside and begin <= b and e <= end and (b, e) != (begin, end) for b, e, other in with_tensor):
            continue
        counts = Counter(text.split()[0].split(".")[0] for text in inside)
        loops.append(Loop(begin, end, counts, len(inside), sum(wavefronts(text) for text in inside)))
    return sorted(loops)


def parse_sass(binary):
    usage, functions, arch, name, code = {}, [], None, None, []
    for line in run(["cuobjdump", "-res-usage", binary]).splitlines():
        found = re.search(r"arch = (sm_\d+)", line)
        arch = found.group(1) if found else arch
        found = re.search(r"Function (\S+):", line)
        name = found.group(1) if found else name
        found = re.search(r"REG:(\d+) STACK:(\d+)", line)
        if found:
            usage[arch, name] = int(found.group(1)), int(found.group(2))
    arch_of_usage = {a for a, _ in usage}

    def close():
        if name and code:
            key = (arch, name) if (arch, name) in usage else (next(iter(arch_of_usage)), name)
            local = sum(text.startswith(("LDL", "STL")) for _, text in code)
            functions.append(Function(arch, name, *usage[key], local, len(code), find_loops(code)))

    arch, name = None, None
    for line in run(["cuobjdump", "-sass", binary]).splitlines():
        found = re.search(r"code for (sm_\d+)", line)
        if found:
            close()
            arch, name, code = found.group(1), None, []
        found = re.search(r"Function : (\S+)", line)
        if found:
            close()
            name, code = found.group(1), []
        found = re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\S+\s+)?([^;]*?)\s*;", line)
        if found:
            code.append((int(found.group(1), 16), found.group(2)))
    close()
    return functions


Shape = namedtuple("Shape", "variant threads shared loops")
Role = namedtuple("Role", "name rows step width hmma products")


def read_shapes(program):
    shapes = {}
    for line in run([program]).splitlines():
        kernel, dtype, width, kind, variant, threads, shared, *roles = line.split()
        parsed = [Role(*[part if i == 0 else int(part) for i, part in enumerate(role.split(":"))]) for role in roles]
        shapes[kernel, dtype, width, kind] = Shape(variant, int(threads), int(shared), parsed)
    return shapes


def short_name(demangled):
    """(key into the shapes or None, a name for people)."""
    found = re.search(r"(\w+)<[\w:]*\b(bf16|f16), (\d+), \([\w:]+\)(\d+)>", demangled)
    if found:
        return found.groups(), " ".join(found.groups()[:3])
    found = re.search(r"(\w+_kernel)(<[^(]*>)?\(", demangled)
    name = found.group(1) + (found.group(2) or "") if found else demangled
    return None, re.sub(r"uvit::(\w+::)*", "", name)


def resident_blocks(function, shape):
    warps = shape.threads // 32
    by_registers = REGISTERS_PER_SM // (-(-function.registers * 32 // 256) * 256 * warps)
    by_shared = SHARED_PER_SM.get(function.arch, 0) // (shape.shared + RESERVED_SHARED)
    return min(by_registers, by_shared, THREADS_PER_SM // shape.threads, BLOCKS_PER_SM)


def cycles(loop, warps, gpu):
    n = loop.counts
    alu = sum(count for opcode, count in n.items() if opcode not in FP32 and opcode not in OTHER_PIPES and not opcode.startswith("U"))
    return {
        "tensor": n["HMMA"] * gpu.hmma_cycles * warps / 4,
        "issue": loop.instructions * warps / 4,
        "fp32": max((sum(n[opcode] for opcode in FP32) + n["IMAD"]) * gpu.fp32_cycles, n["IMAD"] * 2) * warps / 4,
        "alu": alu * 2 * warps / 4,
        "mufu": n["MUFU"] * 8 * warps / 4,
        "shared": loop.wavefronts * warps,
    }


def main_loop(function, role):
    """The shortest of the loops that do the role's products; None where none does exactly the fewest."""
    fitting = [loop for loop in function.loops if loop.counts["HMMA"] == role.hmma]
    return min(fitting, key=lambda loop: loop.instructions) if fitting else None


def report_loop(role, loop, shape, gpu):
    share = 100 * loop.counts["HMMA"] / loop.instructions
    text = f"    {role.name:8} HMMA {loop.counts['HMMA']} of {role.hmma} needed, {share:.0f} % of {loop.instructions} issue slots"
    if gpu:
        bounds = cycles(loop, shape.threads // 32, gpu)
        slowest = max(bounds, key=bounds.get)
        text += f"; tensor-core bound {100 * bounds['tensor'] / bounds[slowest]:.0f} % (by {slowest}; "
        text += ", ".join(f"{name} {value:.0f}" for name, value in bounds.items()) + " cycles)"
    print(text)


def report_times(shape, loops, gpu):
    """Roofline: the FLOP and bytes of the problem itself. Bound: this kernel's tiles, whole, at the main loop's cycles, evenly over all
    multiprocessors; or the time that the bytes take."""
    texts = []
    for B, H, L, D in SHAPES:
        if any(role.width != D for role, _ in loops):
            return
        roles = [role for role, _ in loops]
        flop = sum(2 * role.products for role in roles) * B * H * L * L * D
        tensors = 4 if roles[0].name == "forward" else 8  # q k v o, and dout dq dk dv
        memory = 2 * tensors * B * H * L * D / gpu.bytes_per_s
        least = max(flop / gpu.flops, memory)
        total = sum(-(-L // role.rows) * -(-L // role.step) * max(cycles(loop, shape.threads // 32, gpu).values()) for role, loop in loops)
        bound = max(B * H * total / gpu.sms / gpu.clock_hz, memory)
        texts.append(f"({B},{H},{L},{D}) {1e6 * least:.1f} us, {1e6 * bound:.1f} us")
    print(f"    {gpu.name}: roofline, bound of this code: " + "; ".join(texts))


def report(functions, shapes, quiet):
    faults = []
    demangled = run(["c++filt"], input="\n".join(f.name for f in functions)).splitlines()
    for function, full_name in sorted(zip(functions, demangled), key=lambda pair: (pair[0].arch, pair[1])):
        key, name = short_name(full_name)
        shape = shapes.get(key)
        label = f"{function.arch} {name}" + (f" {shape.variant}" if shape else "")
        if function.stack or function.local:
            faults.append(f"{label}: {function.stack} bytes of stack, {function.local} accesses to local memory: it spills")
        if not quiet:
            print(f"{label}: {function.registers} registers, {function.stack} bytes of stack, {function.local} spills", end="")
            print(f", {shape.shared} bytes shared, {resident_blocks(function, shape)} blocks a multiprocessor" if shape else "")
        if shape:
            loops = [(role, main_loop(function, role)) for role in shape.loops]
            for role, loop in loops:
                if loop is None:
                    found = sorted({loop.counts["HMMA"] for loop in function.loops})
                    faults.append(f"{label}: the {role.name} loop needs {role.hmma} tensor-core instructions; the loops have {found}")
                elif not quiet:
                    report_loop(role, loop, shape, GPUS.get(function.arch))
            if not quiet and function.arch in GPUS and all(loop for _, loop in loops):
                report_times(shape, loops, GPUS[function.arch])
    for fault in faults:
        print("FAULT: " + fault)
    return faults


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", required=True, help="the compiled kernel_shapes.cpp")
    parser.add_argument("--quiet", action="store_true", help="faults only")
    parser.add_argument("binaries", nargs="+", help=".cubin, .o or .a")
    arguments = parser.parse_args()
    functions = [function for binary in arguments.binaries for function in parse_sass(binary)]
    if not functions:
        sys.exit("FAULT: no kernels in " + " ".join(arguments.binaries))
    faults = report(functions, read_shapes(arguments.shapes), arguments.quiet)
    print(f"{len(functions)} kernels, {len(faults)} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
