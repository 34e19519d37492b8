"""Three quarters of its time are below heavy, one below light, for ever."""

# Python is slow: some 500 µs.
UNIT = 5_000


def spin(x, n):
    for _ in range(n):
        x ^= x << 13 & 0xFFFFFFFF
        x ^= x >> 17
        x ^= x << 5 & 0xFFFFFFFF
    return x


def heavy(x, n):
    return spin(x, 3 * n)


def light(x, n):
    return spin(x, n)


# Rounds differ in length, as if by chance: what takes samples by the clock would keep step with equal ones.
def run(x):
    while True:
        n = x % (2 * UNIT)
        x = light(heavy(x, n), n)


run(1)
