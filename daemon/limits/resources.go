package limits

import (
	"fmt"
	"maps"
	"slices"
)

// resources holds what the request asks for against `max`: a resource that is not there, against what the launcher
// itself may have. A nice value below 0 needs `max.nice`, which is that of setrlimit(2): 20 minus the lowest one.
func (q *question) resources() error {
	for _, name := range slices.Sorted(maps.Keys(q.Resources)) {
		most, set := q.Max[name]
		where := "max." + name
		if !set {
			most, where = q.Own[name], where+" is not set, and the launcher's own limit"
		}
		if q.Resources[name] > most {
			return fmt.Errorf("%s: %d is above %d", where, q.Resources[name], most)
		}
	}
	if q.Nice >= 0 {
		return nil
	}
	most, set := q.Max["nice"]
	switch lowest := 20 - int(min(most, 40)); {
	case !set:
		return fmt.Errorf("max.nice: nice %d needs it, and it is not set", q.Nice)
	case q.Nice < lowest:
		return fmt.Errorf("max.nice: nice %d is below %d, which %d stands for", q.Nice, lowest, most)
	}
	return nil
}
