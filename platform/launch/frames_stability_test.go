package launch

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
)

// TestGoldenFrames: each frame of protocol 1 is understood whole, and what is written now is what others read: a frame
// that is read and written again is the same octets. What is added later has a file of its own.
func TestGoldenFrames(t *testing.T) {
	text, err := os.ReadFile("testdata/protocol-1/frames.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]bool{}
	for line := range bytes.Lines(text) {
		var frame any = &Answer{}
		switch {
		case bytes.HasPrefix(line, []byte(`{"protocol"`)):
			frame = &Hello{}
		case bytes.Contains(line, []byte(`"call":`)):
			frame = &Request{}
		}
		err := json.Unmarshal(line, frame)
		again, _ := json.Marshal(frame)
		if err != nil || string(again)+"\n" != string(line) {
			t.Errorf("got  %s\nwant %s%v", again, line, err)
		}
		if r, is := frame.(*Request); is {
			calls[r.Call] = true
		}
	}
	for _, call := range []string{CallStart, CallJob, CallJobs, CallEnded, CallOutput, CallSignal, CallSync, CallStatus, CallWitness, CallAttest,
		CallForget, CallCheck, CallSystemd, CallResolve, CallVerify, CallLogLevel, CallCancel} {
		if !calls[call] {
			t.Errorf("no frame with the call %q", call)
		}
	}
}
