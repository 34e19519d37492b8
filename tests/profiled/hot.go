// Three quarters of its time are below heavy, one below light, for ever.
package main

// Some 100 µs.
const unit = 100_000

// Go gives no frame pointer to a function that calls none and keeps nothing on the stack, and its caller would not be seen:
// what is indexed by a variable is kept on the stack.
//
//go:noinline
func spin(x, n uint32) uint32 {
	var kept [2]uint32
	for ; n > 0; n-- {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		kept[n%2] = x
	}
	return kept[1]
}

//go:noinline
func heavy(x, n uint32) uint32 {
	return spin(x, 3*n)
}

//go:noinline
func light(x, n uint32) uint32 {
	return spin(x, n)
}

// Rounds differ in length, as if by chance: what takes samples by the clock would keep step with equal ones.
//
//go:noinline
func run(x uint32) {
	for {
		n := x % (2 * unit)
		x = light(heavy(x, n), n)
	}
}

func main() {
	run(1)
}
