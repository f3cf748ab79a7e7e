// Package heap takes memory for Go's heap before it is needed, and gives memory back that is needed no more.
package heap

import "runtime"

// Reserve takes so many octets from the system at once, for what is allocated next. Else every page of them
// costs an interruption when it is first used, which under a hypervisor is most of the time that loading some
// megabytes takes. It is worth it once, before much is allocated. Where the system cannot do that nothing happens.
func Reserve(octets int) {
	fill(make([]byte, octets))
	runtime.GC() // gives the room back to the heap, filled
}
