package keeper

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
	"batchwarden/platform/launch/become"
	"batchwarden/platform/pam"
)

// resources are the limits of a process, by the names that a request and the host owner's `max` use.
var resources = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE,
	"memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING,
	"stack": unix.RLIMIT_STACK,
}

// niceFor is the lowest nice value that RLIMIT_NICE stands for.
func niceFor(limit uint64) int { return 20 - int(min(limit, 40)) }

// own are the launcher's hard limits of the resources that a request names.
func own(asked map[string]uint64) (map[string]uint64, error) {
	hard := make(map[string]uint64, len(asked))
	for name := range asked {
		var l unix.Rlimit
		if err := unix.Getrlimit(resources[name], &l); err != nil {
			return nil, fmt.Errorf("launcher: limit %s: %w", name, err)
		}
		hard[name] = l.Max
	}
	return hard, nil
}

// limitsOf are the limits that a job gets beside those that it inherits: what PAM sets, over it what the request asks
// for, which cannot be more, and nothing above the host owner's ceilings.
func limitsOf(asked map[string]uint64, set []pam.Limit, ceilings map[string]uint64) ([]become.Limit, error) {
	limits := map[int]become.Limit{}
	for _, l := range set {
		limits[l.Resource] = become.Limit{Resource: uint32(l.Resource), Soft: l.Soft, Hard: l.Hard}
	}
	for name, value := range asked {
		r := resources[name]
		if l, is := limits[r]; is && l.Hard < value {
			return nil, &launch.Refused{Code: launch.CodeRefused, Reason: fmt.Sprintf("%s: %d is above %d, which PAM allows", name, value, l.Hard)}
		}
		limits[r] = become.Limit{Resource: uint32(r), Soft: value, Hard: value}
	}
	for name, most := range ceilings {
		r := resources[name]
		l, is := limits[r]
		if !is {
			var inherited unix.Rlimit
			if err := unix.Getrlimit(r, &inherited); err != nil {
				return nil, fmt.Errorf("launcher: limit %s: %w", name, err)
			}
			l = become.Limit{Resource: uint32(r), Soft: inherited.Cur, Hard: inherited.Max}
		}
		if l.Hard > most {
			l.Soft, l.Hard = min(l.Soft, most), most
			limits[r] = l
		}
	}
	sorted := make([]become.Limit, 0, len(limits))
	for _, r := range slices.Sorted(maps.Keys(limits)) {
		sorted = append(sorted, limits[r])
	}
	return sorted, nil
}
