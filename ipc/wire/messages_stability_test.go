package wire

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

// TestGoldenMessages: whatever API 1 has said is understood, and said by the same names with the same values. Members
// may be added.
func TestGoldenMessages(t *testing.T) {
	text, err := os.ReadFile("testdata/api-1/messages.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var golden struct {
			Of string          `json:"of"`
			Is json.RawMessage `json:"is"`
		}
		if err := json.Unmarshal(line, &golden); err != nil {
			t.Fatal(err)
		}
		message := map[string]any{
			"Launch": &Launch{}, "Authorize": &Authorize{}, "Decision": &Decision{}, "Retrieve": &Retrieve{}, "Report": &Report{}, "Reported": &Reported{},
			"Signal": &Signal{}, "Job": &Job{}, "BatchUser": &BatchUser{}, "Health": &Health{}, "Whoami": &Whoami{}, "Status": &Status{}, "Event": &Event{},
			"DryRun": &DryRun{}, "Verified": &Verified{}, "HostKey": &HostKey{}, "Suspend": &Suspend{}, "Problem": &Problem{},
		}[golden.Of]
		if message == nil {
			t.Errorf("there is no %s any more", golden.Of)
			continue
		}
		if err := json.Unmarshal(golden.Is, message); err != nil {
			t.Errorf("%s: %v", golden.Of, err)
		}
		again, err := json.Marshal(message)
		if err != nil {
			t.Errorf("%s: %v", golden.Of, err)
		}
		same(t, golden.Of, parsed(t, again), parsed(t, golden.Is))
	}
}

// parsed keeps numbers as they are written.
func parsed(t *testing.T, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// same wants all that want has.
func same(t *testing.T, place string, got, want any) {
	t.Helper()
	g, gotObject := got.(map[string]any)
	w, wantObject := want.(map[string]any)
	gs, gotList := got.([]any)
	ws, wantList := want.([]any)
	switch {
	case wantObject && gotObject:
		for name, v := range w {
			if is, there := g[name]; there {
				same(t, place+"."+name, is, v)
			} else if list, isList := v.([]any); !isList || len(list) > 0 {
				t.Errorf("%s.%s is gone", place, name)
			}
		}
	case wantList && gotList && len(gs) == len(ws):
		for i := range ws {
			same(t, place, gs[i], ws[i])
		}
	case !reflect.DeepEqual(got, want):
		t.Errorf("%s: got %v, want %v", place, got, want)
	}
}
