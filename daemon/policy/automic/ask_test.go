package automic_test

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/automic"
	"batchwarden/daemon/policy/policytest"
)

// TestAskFindsWhatIsGone takes every single thing out of random documents:
// where that changes the answer to a random request, a request that is made
// out of the two documents shows a change.
func TestAskFindsWhatIsGone(t *testing.T) {
	documents, rnd := 5, rand.New(rand.NewPCG(3, 4))
	found, without := 0, 0
	for range documents {
		doc, err := json.Marshal(randomDoc(rnd))
		if err != nil {
			t.Fatal(err)
		}
		var requests []policy.Request
		for range 300 {
			action, o := randomQuestion(rnd)
			text, err := json.Marshal(map[string]any{"subject": map[string]string{"user": pick(rnd, "u1", "u2")}, "action": action, "object": o})
			if err != nil {
				t.Fatal(err)
			}
			r, err := policy.ParseRequest(text)
			if err != nil {
				t.Fatal(err)
			}
			requests = append(requests, r)
		}
		f, w := policytest.Removals(t, automic.Model{}, doc, requests, 5000, 9)
		found, without = found+f, without+w
	}
	t.Logf("%d removals change an answer, %d do not", found, without)
	if found < 10 {
		t.Error("too few removals change anything")
	}
}
