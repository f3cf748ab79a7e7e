package automic_test

import (
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
	rnd := rand.New(rand.NewPCG(3, 4))
	policytest.Removals(t, automic.Model{}, policytest.Losing{
		Documents: 5, Doc: func() any { return randomDoc(rnd) }, Request: func() policy.Request { return randomRequest(t, rnd) },
		Limit: 5_000, Step: 9, Least: 10,
	})
}

func randomRequest(t *testing.T, rnd *rand.Rand) policy.Request {
	t.Helper()
	action, o := randomQuestion(rnd)
	r, err := policy.ParseRequest([]byte(asked(pick(rnd, "u1", "u2"), action, o)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}
