package stonebranch_test

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/policytest"
	"batchwarden/daemon/policy/stonebranch"
)

// TestAskFindsWhatIsGone takes every single thing out of random documents:
// where that changes the answer to a random request, a request that is made
// out of the two documents shows a change.
func TestAskFindsWhatIsGone(t *testing.T) {
	documents, rnd := 2, rand.New(rand.NewPCG(3, 4))
	found, without := 0, 0
	for range documents {
		doc, err := json.Marshal(randomDoc(rnd))
		if err != nil {
			t.Fatal(err)
		}
		var requests []policy.Request
		for range 300 {
			requests = append(requests, randomRequest(rnd))
		}
		f, w := policytest.Removals(t, stonebranch.Model{}, doc, requests, 100000, 1)
		found, without = found+f, without+w
	}
	t.Logf("%d removals change an answer, %d do not", found, without)
	if found < 100 {
		t.Error("too few removals change anything")
	}
}
