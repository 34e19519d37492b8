// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * hot: three quarters of its time are below heavy, one below light, for ever. Stripped: names are in a file beside it.
 */
/* Some 100 us. */
#define UNIT 100000

/* Is in no symbol table: only DWARF knows it. */
static inline __attribute__((always_inline)) unsigned int inlined(unsigned int x)
{
	x ^= x << 13;
	x ^= x >> 17;
	return x ^ x << 5;
}

/*
 * noipa: gcc could see that these have no effect, and keep only some of the calls. volatile: whatever its flags, gcc leaves
 * out the frame pointer of a function that calls none and keeps nothing on the stack, and its caller would not be seen.
 */
static __attribute__((noipa)) unsigned int spin(unsigned int x, volatile unsigned int n)
{
	while (n--)
		x = inlined(x);
	return x;
}

/* Something is left to do after each call: a tail call would take the caller off the stack. */
static __attribute__((noipa)) unsigned int heavy(unsigned int x, unsigned int n)
{
	return spin(x, 3 * n) | 1;
}

static __attribute__((noipa)) unsigned int light(unsigned int x, unsigned int n)
{
	return spin(x, n) | 1;
}

/* Rounds differ in length, as if by chance: what takes samples by the clock would keep step with equal ones. */
static __attribute__((noipa)) void run(unsigned int x)
{
	unsigned int n;

	for (;;) {
		n = x % (2 * UNIT);
		x = light(heavy(x, n), n);
	}
}

int main(void)
{
	run(1);
	return 0;
}
