package lockmem

import "runtime"

// What a function leaves on its stack stays there, and a stack that the runtime grows or shrinks
// leaves a copy of itself behind in memory that nobody wipes. So before f runs the stack is made
// large enough for it, while f runs enough of it is in use that the collector does not shrink it, and
// after f what f may have used is overwritten.
//
// With u octets in use before, grow makes the stack hold u+2*reach, so that it has at most twice that
// (stacks double). During f at least u+reach are in use, which is a quarter or more of it; the
// collector halves a stack only when less than a quarter is in use.
const reach = 24 << 10

// onGrownStack calls f with b under the rules above. A panic of f goes on after the stack is clean.
func onGrownStack(b *Buffer, f func(*Buffer) error) error {
	grow()
	return onBallast(b, f)
}

//go:noinline
func grow() {
	if unused { // the frame has room for it all the same, and nobody clears it
		var room [2*reach + 1024]byte
		runtime.KeepAlive(&room)
	}
}

// unused is never true, which the compiler does not know.
var unused bool

//go:noinline
func onBallast(b *Buffer, f func(*Buffer) error) error {
	if unused {
		var ballast [reach]byte
		runtime.KeepAlive(&ballast)
	}
	panicked, err := call(b, f)
	scrub()
	if panicked != nil {
		panic(panicked)
	}
	return err
}

//go:noinline
func call(b *Buffer, f func(*Buffer) error) (panicked any, err error) {
	defer func() { panicked = recover() }()
	return nil, f(b)
}

//go:noinline
func scrub() {
	var room [reach - 2048]byte
	runtime.KeepAlive(&room)
}

// overwriteRegisters puts zeros where copying and deciphering leave what they worked on: the vector registers, all of
// which copies of these lengths go through.
//
//go:noinline
func overwriteRegisters() {
	var from, to [2048]byte
	for _, n := range [...]int{256, len(to)} {
		copy(to[:n], from[:n])
	}
	runtime.KeepAlive(&to)
}
