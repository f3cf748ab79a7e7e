package refresh

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"testing"
	"time"
)

// TestGoldenState: what an earlier version remembered in the local vault is remembered still, none of it under another
// name. A member that a newer version added is passed over.
func TestGoldenState(t *testing.T) {
	text, err := os.ReadFile("testdata/state-1/state.json")
	if err != nil {
		t.Fatal(err)
	}
	var m memory
	err = json.Unmarshal(text, &m)
	again, _ := json.Marshal(m)
	if err != nil || string(again)+"\n" != string(text) {
		t.Errorf("got  %s\nwant %s%v", again, text, err)
	}
	at := func(hour, second int) time.Time { return time.Date(2026, 3, 4, hour, 0, second, 0, time.UTC) }
	const pay = "machines/db01/batch_users/pay"
	if !m.Confirmed["machines/db01"].Equal(at(12, 0)) || !m.Fresh[pay].Equal(at(12, 1)) || m.Behind["groups/x/policies/opcon"].Why != "format.newer" ||
		m.Rejected["machines/db01/batch_users/fin"].Version != 7 || m.Attempts[pay].Outcome != "accepted" || m.Attempts[pay].Version != 9 ||
		m.Clock.Up != time.Hour || !m.Clock.High.Equal(at(12, 2)) || !m.LastSuccess.Equal(at(12, 0).Add(500*time.Millisecond)) {
		t.Errorf("got %+v", m)
	}
	if got := slices.Sorted(maps.Keys(m.Attempts)); !slices.Equal(got, []string{pay}) {
		t.Errorf("attempts of %q", got)
	}
	var newer memory
	if err := json.Unmarshal(append([]byte(`{"added_later":{"x":[1]},`), text[1:]...), &newer); err != nil || newer.unlike(&m) {
		t.Errorf("of a newer version: %+v, %v", newer, err)
	}
}
