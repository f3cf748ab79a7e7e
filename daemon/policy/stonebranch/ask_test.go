package stonebranch_test

import (
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
	rnd := rand.New(rand.NewPCG(3, 4))
	policytest.Removals(t, stonebranch.Model{}, policytest.Losing{
		Documents: 2, Doc: func() any { return randomDoc(rnd) }, Request: func() policy.Request { return randomRequest(rnd) },
		Limit: 100_000, Step: 1, Least: 100,
	})
}
