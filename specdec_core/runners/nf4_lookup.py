"""The PTX that decodes NF4 weights in the kernel of a product. Needs neither Triton nor a GPU."""

from __future__ import annotations


def lookup_in_registers(code: list[int]) -> str:
    """PTX that decodes four packed bytes into eight 16-bit values, by byte permutations of a table in
    registers: a load for each value would be bound by the load units.

    `code` has the bits of NF4's 16 values. The outputs are the values of the high four bits of the bytes,
    then those of the low ones, two in a register.
    """
    low, high = [value & 0xFF for value in code], [value >> 8 for value in code]

    def word(values: list[int]) -> str:
        return hex(sum(value << (8 * at) for at, value in enumerate(values)))

    lines = ["{", ".reg .b32 s<2>, m<2>, a, b, h<2>, l<2>;"]
    lines += ["and.b32 s0, $4, 0x77777777;", "shr.b32 s1, s0, 16;"]
    # A byte of a mask is the highest bit of a nibble, repeated: the sign of a byte of the word or, for low
    # nibbles, of the word shifted by four. 0xff asks for the upper half of the table.
    lines += ["shl.b32 a, $4, 4;", "prmt.b32 m0, a, $4, 0xd9c8;", "prmt.b32 m1, a, $4, 0xfbea;"]
    for at in range(2):
        for name, table in (("h", high), ("l", low)):
            words = [word(table[first : first + 4]) for first in (0, 4, 8, 12)]
            lines += [f"mov.b32 a, {words[0]};", f"prmt.b32 a, a, {words[1]}, s{at};"]
            lines += [f"mov.b32 b, {words[2]};", f"prmt.b32 b, b, {words[3]}, s{at};"]
            # b where the mask is set, else a
            lines += [f"lop3.b32 {name}{at}, b, a, m{at}, 0xe4;"]
    lines += [f"prmt.b32 ${at}, l{at}, h{at}, 0x7351;" for at in range(2)]
    lines += [f"prmt.b32 ${at + 2}, l{at}, h{at}, 0x6240;" for at in range(2)]
    return "\n".join([*lines, "}"])
