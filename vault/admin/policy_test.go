package admin_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"batchwarden/vault/admin"
)

const policyScope = "machines/a"

// bigPolicy is a policy of about size octets that is hard to compress.
func bigPolicy(size int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(size)))
	var b strings.Builder
	b.WriteString(`{"model":"opcon","roles":{`)
	for i := 0; b.Len() < size-200; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"r%07d":{"batch_users":{"unix":["users/%x"]},"functions":[],"machines":["%x"]}`, i, r.Uint64(), r.Uint64())
	}
	b.WriteString(`},"users":{},"batch_users":[],"host":{"black_list":[],"white_list":[]}}`)
	return []byte(b.String())
}

func sameJSON(t *testing.T, got, want []byte) {
	t.Helper()
	var g, w any
	must(t, json.Unmarshal(got, &g))
	must(t, json.Unmarshal(want, &w))
	x, err := json.Marshal(g)
	must(t, err)
	y, err := json.Marshal(w)
	must(t, err)
	if !bytes.Equal(x, y) {
		t.Errorf("another document: %d octets, want %d", len(got), len(want))
	}
}

// policy checks what lies there and returns its version.
func (b *bench) policy(want []byte) int64 {
	b.Helper()
	got, version, err := b.admin.Policy(b.Context(), policyScope, "opcon")
	must(b.T, err)
	sameJSON(b.T, got, want)
	return version
}

func TestPolicy(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	if doc, version, err := b.admin.Policy(ctx, policyScope, "opcon"); doc != nil || version != 0 || err != nil {
		t.Errorf("where there is none: got %q, %d, %v", doc, version, err)
	}
	for i, doc := range [][]byte{
		[]byte(`{"model":"opcon", "users":{}}`), []byte(`{"users":{"a":{"roles":[]}},"model":"opcon"}`),
		bigPolicy(1 << 20), bigPolicy(2 << 20), []byte(`{"model":"opcon"}`),
	} {
		b.change(func(a *admin.Admin) ([]admin.Step, error) {
			return a.PutPolicy(ctx, policyScope, "opcon", "opcon", doc, int64(i))
		})
		if v := b.policy(doc); v != int64(i+1) {
			t.Errorf("version %d, want %d", v, i+1)
		}
		if got := fmt.Sprint(b.at(policyScope + "/index")["policies"]); got != fmt.Sprintf("map[opcon:%d]", i+1) {
			t.Errorf("index: %s", got)
		}
	}
	realms, err := b.admin.Policies(ctx, policyScope)
	must(t, err)
	if fmt.Sprint(realms) != "[opcon]" {
		t.Errorf("realms: %v", realms)
	}
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.DeletePolicy(ctx, policyScope, "opcon", false) })
	if doc, version, err := b.admin.Policy(ctx, policyScope, "opcon"); doc != nil || version != 5 || err != nil {
		t.Errorf("after it was deleted: got %q, %d, %v", doc, version, err)
	}
	_, err = b.admin.PutPolicy(ctx, policyScope, "opcon", "opcon", bigPolicy(1<<20), 5)
	must(t, err)
	b.change(func(a *admin.Admin) ([]admin.Step, error) { return a.DeletePolicy(ctx, policyScope, "opcon", true) })
	left, err := b.server.Root().Logical().ListWithContext(ctx, "batch/metadata/machines/a/policies")
	must(t, err)
	if left != nil {
		t.Errorf("left of it: %v", left.Data)
	}
}

func TestPolicyOfTenMegabytes(t *testing.T) {
	b := start(t)
	doc := bigPolicy(10<<20 - 1000)
	_, err := b.admin.PutPolicy(t.Context(), policyScope, "opcon", "opcon", doc, 0)
	must(t, err)
	b.policy(doc)
	_, err = b.admin.PutPolicy(t.Context(), policyScope, "opcon", "opcon", bigPolicy(10<<20+1000), 1)
	want(t, err, admin.ErrInvalid)
}

func TestPolicyThatSomebodyElseChanged(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	other := b.as(b.server.RootToken)
	base := []byte(`{"model":"opcon"}`)
	_, err := b.admin.PutPolicy(ctx, policyScope, "opcon", "opcon", base, 0)
	must(t, err)
	theirs := bigPolicy(1 << 20)
	_, err = other.PutPolicy(ctx, policyScope, "opcon", "opcon", theirs, 1)
	must(t, err)
	if w := b.writes(func() {
		_, err = b.admin.PutPolicy(ctx, policyScope, "opcon", "opcon", bigPolicy(2<<20), 1)
	}); len(w) > 0 {
		t.Errorf("wrote %q although it came too late", w)
	}
	want(t, err, admin.ErrConflict)
	b.policy(theirs)
	_, err = b.admin.PutPolicy(ctx, policyScope, "opcon", "opcon", base, admin.AnyVersion)
	must(t, err)
	b.policy(base)
}

func TestPolicyThatNoMachineWouldTake(t *testing.T) {
	b := start(t)
	for _, doc := range []string{"", "[]", "{", `{"model":"automic"}`, `{"model":"opcon","format":2}`, `{"model":"opcon","parts":[]}`, `{"model":"opcon"} x`} {
		_, err := b.admin.PutPolicy(t.Context(), policyScope, "opcon", "opcon", []byte(doc), 0)
		want(t, err, admin.ErrInvalid)
	}
	_, err := b.admin.PutPolicy(t.Context(), policyScope, "opcon", "cron", []byte(`{"model":"cron"}`), 0)
	want(t, err, admin.ErrInvalid)
}

// TestPolicyInterrupted cuts the operator off after every single write of a long
// policy: until the head is written the old document is there, whole; what is
// left over is cleaned by the next that goes through.
func TestPolicyInterrupted(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	old := bigPolicy(2 << 20)
	_, err := b.admin.PutPolicy(ctx, policyScope, "opcon", "opcon", old, 0)
	must(t, err)
	next := bigPolicy(4 << 20)
	done := false
	var cuts int
	for !done {
		cut := b.through(cuts)
		_, err := cut.PutPolicy(ctx, policyScope, "opcon", "opcon", next, 1)
		if done = err == nil; done || b.head() == 2 {
			break
		}
		cuts++
		b.policy(old)
	}
	if cuts != 4 { // three parts and the metadata of the third; what is there already is not written again

		t.Errorf("interrupted only %d times", cuts)
	}
	b.policy(next)
	nextSecond()
	var steps []admin.Step
	for i := range 11 { // Vault keeps ten versions of the head, so the first two are no more
		steps, err = b.admin.PutPolicy(ctx, policyScope, "opcon", "opcon", []byte(fmt.Sprintf(`{"model":"opcon","x_":%d}`, i)), admin.AnyVersion)
		must(t, err)
		noWarning(t, steps)
	}
	parts, err := b.server.Root().Logical().ListWithContext(ctx, "batch/metadata/machines/a/policies/opcon.parts")
	must(t, err)
	for _, n := range parts.Data["keys"].([]any) {
		s, err := b.server.Root().Logical().ReadWithContext(ctx, fmt.Sprintf("batch/metadata/machines/a/policies/opcon.parts/%v", n))
		must(t, err)
		for v, age := range s.Data["versions"].(map[string]any) {
			if age.(map[string]any)["destroyed"] != true {
				t.Errorf("version %s of part %v is there, and no head names it", v, n)
			}
		}
	}
}

func (b *bench) head() int64 {
	_, version, err := b.admin.Policy(b.Context(), policyScope, "opcon")
	must(b.T, err)
	return version
}

// through is an Admin whose connection ends after the number of writes.
func (b *bench) through(writes int) *admin.Admin {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(writes))
	return b.before(func(r *http.Request) bool { return r.Method == http.MethodGet || left.Add(-1) >= 0 })
}

// before is an Admin each of whose requests is let through by f, or cut.
func (b *bench) before(f func(*http.Request) bool) *admin.Admin {
	b.Helper()
	to, err := url.Parse(b.server.Address)
	must(b.T, err)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = b.server.Root().CloneConfig().HttpClient.Transport
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !f(r) {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	b.Cleanup(front.Close)
	ca := b.TempDir() + "/ca.pem"
	must(b.T, os.WriteFile(ca, pemOf(front.Certificate()), 0o600))
	c := b.conf(b.server.RootToken)
	c.Address, c.CAFile = front.URL, ca
	a, err := admin.New(c)
	must(b.T, err)
	return a
}

// TestCleaningLeavesOtherWritersParts: parts that were written before the head
// in force and are named by none are destroyed; those written since may be named
// by the head to come.
func TestCleaningLeavesOtherWritersParts(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	short := func(i int) []byte { return fmt.Appendf(nil, `{"model":"opcon","x_":%d}`, i) }
	_, err := b.admin.PutPolicy(ctx, policyScope, "opcon", "opcon", short(1), 0)
	must(t, err)
	if _, err = b.through(4).PutPolicy(ctx, policyScope, "opcon", "opcon", bigPolicy(2<<20), 1); err == nil {
		t.Fatal("it was not interrupted")
	}
	nextSecond()
	var once sync.Once
	meeting := b.before(func(r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/opcon.parts") { // the head is written, the cleaning begins
			once.Do(func() {
				if _, err := b.through(2).PutPolicy(ctx, policyScope, "opcon", "opcon", bigPolicy(2<<20), 2); err == nil {
					t.Error("the other writer was not interrupted")
				}
			})
		}
		return true
	})
	_, err = meeting.PutPolicy(ctx, policyScope, "opcon", "opcon", short(2), 1)
	must(t, err)
	for part := range 2 {
		s, err := b.server.Root().Logical().ReadWithContext(ctx, fmt.Sprintf("batch/metadata/machines/a/policies/opcon.parts/%d", part+1))
		must(t, err)
		for v, want := range map[string]bool{"1": true, "2": false} {
			age, ok := s.Data["versions"].(map[string]any)[v].(map[string]any)
			if !ok || age["destroyed"] != want {
				t.Errorf("part %d, version %s: %v; want destroyed %v", part+1, v, age, want)
			}
		}
	}
}

// nextSecond returns in the next second of the clock: the server's times of
// versions may be no finer, and what is as old as the head is not cleaned.
func nextSecond() {
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
}
