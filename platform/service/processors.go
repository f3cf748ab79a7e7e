package service

import (
	"os"
	"runtime"
)

// ShareProcessors leaves half of the processors to those whom the program serves: each of its requests has somebody at
// the other end, and the machine is there for their work. It is also what answers soonest where there are few, because
// a goroutine that becomes ready then wakes no second processor to look for more. GOMAXPROCS in the environment
// counts instead.
func ShareProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
}
