package snapshot

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Names is what realms and models call a batch user, in order of Where, which is unique. Nearly all
// have one or two: a map for each of thousands of batch users would be the most that a daemon holds.
type Names []Name

// Name is what one realm, or all realms of one model, call a batch user.
type Name struct{ Where, Name string }

// NamesOf returns the names of a map by realm, or by model.
func NamesOf(m map[string]string) Names {
	var n Names
	for _, where := range slices.Sorted(maps.Keys(m)) {
		n = append(n, Name{where, m[where]})
	}
	return n
}

// In is what the realm or the model calls it; "" when it has no name for it.
func (n Names) In(where string) string {
	i, found := slices.BinarySearchFunc(n, where, func(x Name, where string) int { return strings.Compare(x.Where, where) })
	if !found {
		return ""
	}
	return n[i].Name
}

// Map is the reverse of NamesOf; nil when there are none.
func (n Names) Map() map[string]string {
	if len(n) == 0 {
		return nil
	}
	m := make(map[string]string, len(n))
	for _, x := range n {
		m[x.Where] = x.Name
	}
	return m
}

// MarshalJSON writes an object, by realm or by model.
func (n Names) MarshalJSON() ([]byte, error) { return json.Marshal(n.Map()) }

// UnmarshalJSON is the reverse of MarshalJSON.
func (n *Names) UnmarshalJSON(text []byte) error {
	var m map[string]string
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	*n = NamesOf(m)
	return nil
}
