package snapshot

import (
	"encoding/json"
	"maps"
	"testing"
)

func TestNames(t *testing.T) {
	is := map[string]string{"prod": "PROD.PAY", "opcon": "users/pay", "automic": ""}
	n := NamesOf(is)
	for _, where := range []string{"automic", "opcon", "prod", "stonebranch", ""} {
		if got := n.In(where); got != is[where] {
			t.Errorf("in %q: got %q, want %q", where, got, is[where])
		}
	}
	if got := n.Map(); !maps.Equal(got, is) {
		t.Errorf("got %v, want %v", got, is)
	}
	text, err := json.Marshal(BatchUser{Names: n})
	if err != nil {
		t.Fatal(err)
	}
	var was struct{ Names map[string]string } // which it was when the first heads were sealed
	var again BatchUser
	if err := json.Unmarshal(text, &was); err != nil || !maps.Equal(was.Names, is) {
		t.Errorf("%s, %v: want an object", text, err)
	}
	if err := json.Unmarshal(text, &again); err != nil || !maps.Equal(again.Names.Map(), is) {
		t.Errorf("%s again: %v, %v", text, again.Names, err)
	}
	if NamesOf(nil) != nil || Names(nil).In("opcon") != "" || Names(nil).Map() != nil {
		t.Error("no names are some")
	}
}
