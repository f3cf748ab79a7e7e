package remote

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/sealed"
)

func TestDue(t *testing.T) {
	s := session{From: day, Life: time.Hour}
	for name, c := range map[string]struct {
		s           session
		after       time.Duration
		renew, dead bool
	}{
		"fresh":                    {s, time.Minute, false, false},
		"before_two_thirds":        {s, 39 * time.Minute, false, false},
		"past_five_sixths":         {s, 51 * time.Minute, true, false},
		"ended":                    {s, time.Hour, false, true},
		"from_the_future":          {s, -2 * time.Minute, false, true},
		"shorter_than_a_run":       {session{From: day, Life: 2 * time.Minute}, time.Second, true, false},
		"without_end":              {session{From: day}, 1000 * time.Hour, false, false},
		"a_clock_that_jitters_bit": {s, -time.Second, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			if renew, dead := c.s.due(day.Add(c.after)); renew != c.renew || dead != c.dead {
				t.Errorf("got renew %v, dead %v", renew, dead)
			}
		})
	}
}

// TestRenewalsAreSpread has thousands of machines that began in one moment.
func TestRenewalsAreSpread(t *testing.T) {
	const machines, slots = 6000, 60
	for _, life := range []time.Duration{time.Hour, 768 * time.Hour, 10 * 365 * 24 * time.Hour} {
		var in [slots]int
		for i := range machines {
			s := session{From: day, Life: life, Print: digest(fmt.Sprint(i))}
			at := s.share()
			if at < life*2/3-slots || at >= life*5/6 { // rounding
				t.Fatalf("renewed at %v of %v", at, life)
			}
			if again := s.share(); again != at {
				t.Fatalf("first %v, then %v", at, again)
			}
			in[min(slots-1, max(0, int((at-life*2/3)/(life/6/slots))))]++
		}
		for slot, n := range in {
			if n < machines/slots/2 || n > machines/slots*2 {
				t.Errorf("%d of %d come in slot %d of %d", n, machines, slot, slots)
			}
		}
	}
}

func TestWhoseSecretID(t *testing.T) {
	for _, c := range []struct {
		mount, role, path string
		ours              bool
	}{
		{"approle", "", "auth/approle/role/db01/secret-id", true},
		{"approle", "db01", "auth/approle/role/db01/secret-id", true},
		{"approle", "DB01", "auth/approle/role/db01/secret-id", true},
		{"pay/approle", "db01", "auth/pay/approle/role/db01/secret-id", true},
		{"approle", "db01", "auth/approle/role/db02/secret-id", false},
		{"approle", "", "auth/approle/role//secret-id", false},
		{"approle", "", "auth/approle/role/secret-id", false},
		{"approle", "", "auth/approle/role/a/b/secret-id", false},
		{"approle", "", "auth/approle/role/db01/custom-secret-id", false},
		{"approle", "", "auth/approle/role/db01/secret-id/", false},
		{"approle", "", "auth/other/role/db01/secret-id", false},
		{"approle", "", "x/auth/approle/role/db01/secret-id", false},
		{"approle", "", "sys/wrapping/wrap", false},
		{"approle", "", "", false},
	} {
		if w := (&wrapped{mount: c.mount, role: c.role}); w.ours(c.path) != c.ours {
			t.Errorf("%s of role %q at %s: ours is %v", c.path, c.role, c.mount, !c.ours)
		}
	}
}

// worker is a run of the next worker, with the keys of a new batch.
func worker(generation uint64, before *errand.Keys, token *sealed.Token) *run {
	keys := new(errand.Keys)
	keys.Batch[0] = byte(generation)
	if before != nil {
		keys.Token = before.Batch
	}
	r := &run{keys: keys, task: &errand.Task{Generation: generation, Token: token}}
	r.keep.restore(keys, token)
	return r
}

func TestWhatIsKept(t *testing.T) {
	leave := func(r *run) *errand.Report {
		t.Helper()
		report := new(errand.Report)
		if err := r.leave(report); err != nil {
			t.Fatal(err)
		}
		return report
	}
	first := worker(1, nil, nil)
	first.session = &session{Token: "from a file"} // has no print, and is not kept
	if r := leave(first); r.Token != nil || r.KeepToken {
		t.Error("something is kept although there is nothing to keep")
	}
	first = worker(1, nil, nil)
	key := bytes.Clone(first.markKey())
	if len(key) != 32 || bytes.Equal(key, make([]byte, 32)) || !bytes.Equal(key, first.markKey()) {
		t.Fatal("no key of 32 octets that stays")
	}
	token := leave(first).Token
	if token == nil {
		t.Fatal("the key is not kept where there is no session")
	}

	second := worker(2, first.keys, token) // logs in
	second.session = &session{Token: "t", Print: "p", From: day, Life: time.Hour}
	second.keep.Secret = &unwrapped{From: "w", SecretID: "s"}
	after := leave(second)
	if after.Token == nil || after.KeepToken || !after.TokenExpires.Equal(day.Add(time.Hour)) {
		t.Errorf("got %+v after a login", after)
	}

	third := worker(3, second.keys, after.Token) // finds nothing new
	if !bytes.Equal(third.markKey(), key) || third.keep.Secret.SecretID != "s" {
		t.Error("a login changed what was kept")
	}
	third.session = third.keep.usable("p", day.Add(time.Minute))
	if third.session == nil || third.keep.usable("q", day) != nil || third.keep.usable("p", day.Add(2*time.Hour)) != nil {
		t.Error("the token is not used as it should be")
	}
	if r := leave(third); !r.KeepToken || r.Token != nil {
		t.Error("nothing changed, and it is kept anew")
	}

	fourth := worker(4, second.keys, after.Token) // and loses its token
	fourth.session = fourth.keep.usable("p", day)
	fourth.forget()
	gone := leave(fourth)
	fifth := worker(5, fourth.keys, gone.Token)
	if fifth.keep.Session != nil || !bytes.Equal(fifth.markKey(), key) || fifth.keep.Secret.SecretID != "s" {
		t.Error("with the token more went than that")
	}
	if lost := worker(6, second.keys, gone.Token); lost.keep.before != nil || lost.keep.MarkKey != nil {
		t.Error("it opens with another key")
	}
}

// TestNobodyKeeps: what can be had only once is not used when nobody took it.
func TestNobodyKeeps(t *testing.T) {
	gone := errors.New("nobody listens")
	r := worker(1, nil, nil)
	r.out.Token = func(sealed.Token) error { return gone }
	if trouble := r.keepNow(); trouble == nil || !errors.Is(r.putErr, gone) {
		t.Errorf("got %v, %v", trouble, r.putErr)
	}
}
